# ruff: noqa: E501  (a Markdown table row cannot be wrapped)
"""The text of card.md. It is a constant and no data file, so that the stage key of ``package`` covers it."""

CARD = """\
# {{ dataset|md }} / {{ split|md }}: image classifier

A distilled vision transformer that assigns an image to one of {{ classes|length }} classes, structurally pruned and
exported to ONNX in fp32 and int8. Trained on {{ train_counts|sum }} images of dataset `{{ dataset }}`, split `{{ split }}`
(from `split@{{ digests.split[:12] }}`).

Every number below names the artifact it was read from as `stage@digest`, the first 12 digits of the SHA-256 listed under
[Artifacts](#artifacts). `receipt.json` states the SHA-256 of every file in this folder.

## Accuracy

Test images: {{ metrics.test_samples }}. Percent correct, mean head (average of the logits of both tokens), from
`evaluate@{{ digests.evaluate[:12] }}`. "–" means that a group has no class, or a class no test image.

| model | artifact | {{ columns|join(" | ") }} |
|---|---|{{ "---:|" * columns|length }}
{% for row in rows -%}
| {{ row.title }} | `{{ row.source }}` | {{ row.percentages|join(" | ") }} |
{% endfor %}
Groups by number of training images (from `split@{{ digests.split[:12] }}`):
{% for name, members in metrics.groups.items() -%}
{{ name }}: {{ members|length }} class{{ "" if members|length == 1 else "es" }}{{ "." if loop.last else ", " }}
{%- endfor %}
{%- if "head" in metrics.groups %} Head, mid and tail are the official groups by class index.{% endif %}

## Size

| model | artifact | parameters | multiply-accumulates | file bytes |
|---|---|---:|---:|---:|
{% for row in rows -%}
| {{ row.title }} | `{{ row.source }}` | {{ row.parameters }} | {{ row.macs }} | {{ row.bytes }} |
{% endfor %}
All from `evaluate@{{ digests.evaluate[:12] }}`. The packaged network has {{ macs_share }} % of the multiply-accumulates of
the unpruned student, and `model.int8.onnx` has {{ bytes_share }} % of the bytes of `model.onnx`.

## Latency

Latency is measured, differs between machines and is therefore no part of this package. See the report of
{% if pipeline %}pipeline `{{ pipeline }}`{% else %}the pipeline that made this package{% endif %}, stage `report`.

## Checks passed

- Export: over {{ parity.images }} validation images the logits of `model.onnx` differ from torch's by at most
  {{ parity.outputs.logits.relative|significant }} of the largest logit (allowed: {{ parity.tolerance|significant }}); from `export@{{ digests.export[:12] }}`.
- Quantization: {{ quantization.products.integer }} integer products for {{ quantization.products.weights }} weight products in ONNX Runtime's optimised graph; on
  {{ quantization.accuracy.images }} validation images int8 is {{ quantization.accuracy.drop|significant }} points below fp32 (allowed: {{ quantization.accuracy.max_drop|significant }}); from
  `quantize@{{ digests.quantize[:12] }}`.

## Intended use and limits

- Made for images like those of dataset `{{ dataset }}`. It always answers with one of the {{ classes|length }} classes below; it has
  no answer for "none of these".
- Training images per class range from {{ train_counts|min }} to {{ train_counts|max }} (from `split@{{ digests.split[:12] }}`).
  Accuracy of single classes differs; the table below gives each one.
- The test images come from the same source as the training images. Nothing here was measured on other sources.
- The printed probabilities are softmax values of the logits and were not calibrated.
- int8 results may differ in the last bits between processors with different integer instructions.

## How to run

    vitops predict PACKAGE IMAGE...

or with ONNX Runtime alone. Input `{{ input_name }}`: (batch, 3, {{ preprocess.size }}, {{ preprocess.size }}) float32. Output 0, `logits`: (batch, {{ classes|length }}), the mean head.
Preprocessing (`preprocessing.json`): convert to RGB,
{%- if preprocess.resize %} resize the shorter side to {{ preprocess.resize }} ({{ preprocess.interpolation }}), crop the
centre to {{ preprocess.size }} x {{ preprocess.size }},
{%- else %} resize to {{ preprocess.size }} x {{ preprocess.size }} ({{ preprocess.interpolation }}),
{%- endif %} divide by 255, subtract the mean
{{ preprocess.mean|join(", ") }} and divide by the standard deviation {{ preprocess.std|join(", ") }}, per channel.

| file | what it is |
|---|---|
| `model.int8.onnx` | static int8 (QDQ), what `vitops predict` runs; from `quantize@{{ digests.quantize[:12] }}` |
| `model.onnx` | fp32; from `export@{{ digests.export[:12] }}` |
| `model.safetensors`, `model.json` | torch weights and what is needed to rebuild the network; from `prune@{{ digests.prune[:12] }}` |
| `preprocessing.json` | how an image becomes the input; from `prune@{{ digests.prune[:12] }}` |
| `receipt.json` | in-toto statement: SHA-256 of every other file, inputs, parameters and stage key |

## Classes

Training images from `split@{{ digests.split[:12] }}`, int8 accuracy from `evaluate@{{ digests.evaluate[:12] }}`.

| label | class | training images | int8 % |
|---:|---|---:|---:|
{% for name in classes -%}
| {{ loop.index0 }} | {{ name|md }} | {{ train_counts[loop.index0] }} | {{ per_class[loop.index0]|percent }} |
{% endfor %}
## Artifacts

| stage | SHA-256 |
|---|---|
{% for stage, digest in artifacts -%}
| {{ stage }} | `{{ digest }}` |
{% endfor -%}
"""
