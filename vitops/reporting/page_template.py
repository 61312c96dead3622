# ruff: noqa: E501  (HTML and CSS lines)
"""The report's HTML: one file, no scripts, nothing loaded from anywhere. A constant, so that the stage key covers it."""

STYLE = """
:root{color-scheme:light dark;--paper:#f5f6f8;--card:#fff;--ink:#1a1f29;--muted:#667085;--line:#e4e7ec;--soft:#f0f2f5;
--teacher:#c2780a;--student:#2b6ad8;--pruned:#7b4bd1;--int8:#0b8f6c;--other:#64748b;--counts:#a3aec0;--good:#16895a;--bad:#cc3333}
@media (prefers-color-scheme:dark){:root{--paper:#10131a;--card:#181d26;--ink:#e7eaf0;--muted:#98a2b3;--line:#2a313d;--soft:#212733;
--teacher:#eaa63c;--student:#6ea0ff;--pruned:#b394f5;--int8:#3ecfa3;--other:#94a3b8;--counts:#566174;--good:#3fbf85;--bad:#ff7070}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:40px;padding-bottom:8px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:14px;margin:0 0 6px;font-weight:600}
p{margin:4px 0 12px}
.muted,.lead{color:var(--muted)}
.lead{max-width:76ch}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;margin:18px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin:18px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:16px 18px}
.tile b{display:block;font-size:27px;line-height:1.25;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:13px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:18px 26px}
.grid.wide{grid-template-columns:repeat(auto-fit,minmax(310px,1fr))}
.grid.pair{grid-template-columns:repeat(auto-fit,minmax(400px,1fr))}
figure{margin:0 0 10px;min-width:0}figcaption{color:var(--muted);font-size:13px}
.two{display:grid;grid-template-columns:minmax(0,640px) minmax(240px,1fr);gap:26px;align-items:start}
@media (max-width:900px){.two{grid-template-columns:1fr}}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:right;padding:7px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--muted);font-weight:500;font-size:12.5px}
th:first-child,td:first-child,.left{text-align:left}
tr:last-child td{border-bottom:0}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:8px}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
details{margin-top:12px}summary{cursor:pointer;color:var(--muted);font-size:14px}
.tree,.tree ul{list-style:none;margin:0;padding:0 0 0 20px;border-left:1px solid var(--line)}
.tree{border:0;padding:0}.tree li{padding:3px 0}
footer{color:var(--muted);font-size:13px;padding-top:6px;padding-bottom:48px}
svg text{font-family:inherit;fill:var(--ink)}
svg .tick{font-size:11.5px;fill:var(--muted)}svg .label{font-size:12.5px;fill:var(--muted)}
svg .name{font-size:13px;font-weight:600}svg .value{font-size:11px}
svg .code{font:11.5px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;fill:var(--muted)}
svg .status{font-size:11.5px;fill:var(--card);font-weight:600}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--muted);stroke-width:1}
svg .level{stroke:var(--muted);stroke-width:1.2;stroke-dasharray:5 4}svg .thread{stroke-width:1.2;stroke-opacity:.6}
svg .sheet{fill:var(--soft);stroke:var(--line)}
svg .disc{fill-opacity:.22;stroke:none}svg .road{stroke-dasharray:4 5;stroke-width:1.3}
svg .curve{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .dense{fill:none;stroke:var(--counts);stroke-width:1.2;stroke-dasharray:3 2}
svg .edge{fill:none;stroke:var(--muted);stroke-width:1.6}svg .edge.far{stroke:var(--counts);stroke-width:1.2}
svg .node{stroke:var(--card);stroke-width:3}
@media print{section,.tile{break-inside:avoid}}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }} – vitops report</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<p class="muted">vitops report{% if pipeline %} · pipeline <b>{{ pipeline }}</b>{% endif %}</p>
<h1>{{ title }}</h1>
<p class="muted">package <code>{{ package }}</code></p>
<div class="tiles">
{% for tile in tiles %}<div class="tile"><b>{{ tile.value }}</b>{{ tile.what }}<br><span>{{ tile.beside }}</span></div>
{% endfor %}</div>
</header>
<main>
<section>
<h2>Accuracy and latency</h2>
<p class="lead">Mean-head accuracy on {{ metrics.test_samples }} test images over the median time of one image. The area of a disc is the size of the file; the dashed line is the road from the student to what is deployed.</p>
<div class="two">
<div>{{ scatter }}</div>
<div class="scroll"><table>
<thead><tr><th scope="col">latency</th><th scope="col">median ms</th><th scope="col">p90 ms</th><th scope="col">min ms</th><th scope="col">× student</th></tr></thead>
<tbody>{% for row in latencies %}<tr><td><span class="dot" style="background:{{ row.colour }}"></span>{{ row.name }}</td><td>{{ "%.3f"|format(row.median_ms) }}</td><td>{{ "%.3f"|format(row.p90_ms) }}</td><td>{{ "%.3f"|format(row.min_ms) }}</td><td>{{ "%.2f"|format(row.speedup) }}</td></tr>
{% endfor %}</tbody></table>
<p class="muted">{{ latency.runs }} timed runs per model after {{ latency.warm_up }} untimed ones, interleaved; ONNX Runtime {{ latency.onnxruntime }}, batch 1, 1 thread, {{ latency.cpu }}. Teacher and student were exported to ONNX for this.</p>
</div></div>
</section>
<section>
<h2>Models</h2>
<p class="lead">Percent correct of the mean head. “–”: the group has no class, or no test image. ECE: expected calibration error in percent.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">model</th>{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}<th scope="col">ECE</th><th scope="col">parameters</th><th scope="col">MACs</th><th scope="col">file bytes</th><th scope="col">median ms</th><th scope="col">artifact</th></tr></thead>
<tbody>{% for row in models %}<tr><td><span class="dot" style="background:{{ row.colour }}"></span>{{ row.title }}</td>{% for name in columns %}<td>{{ row.score[name]|percent }}</td>{% endfor %}<td>{{ row.score.ece|percent }}</td><td>{{ "{:,}".format(row.parameters) }}</td><td>{{ "{:,}".format(row.macs) }}</td><td>{{ "{:,}".format(row.bytes) }}</td><td>{{ row.latency }}</td><td><code>{{ row.artifact[:12] }}</code></td></tr>
{% endfor %}</tbody></table></div>
<p class="muted">{% for name, members in metrics.groups.items() %}{{ name }}: {{ members|length }} class{{ "" if members|length == 1 else "es" }}{{ "" if loop.last else " · " }}{% endfor %}</p>
</section>
{% if heads %}<section>
<h2>Two experts</h2>
<p class="lead">A distilled transformer answers twice: CLS learned from the labels, DIST from the teacher. The mean averages their logits.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">model</th><th scope="col" class="left">head</th>{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}<th scope="col">ECE</th><th scope="col">as the teacher</th></tr></thead>
<tbody>{% for row in heads %}<tr><td>{{ row.title }}</td><td class="left">{{ row.head }}</td>{% for name in columns %}<td>{{ row.score[name]|percent }}</td>{% endfor %}<td>{{ row.score.ece|percent }}</td><td>{% if row.score.agreement %}{{ row.score.agreement.overall|percent }}{% else %}–{% endif %}</td></tr>
{% endfor %}</tbody></table></div>
{% if diversity %}<p class="lead">Expert diversity is 1 − cos(CLS, DIST) after the last norm: 0 when both see the same. The curves are means over the training images of each epoch.</p>
<div class="grid wide">{% for chart in diversity %}<figure><figcaption>{{ chart.name }}{% if chart.test is not none %}: {{ "%.4f"|format(chart.test) }} on test images{% endif %}</figcaption>{{ chart.picture }}</figure>{% endfor %}</div>{% endif %}
</section>{% endif %}
<section>
<h2>Classes</h2>
<p class="lead">Training images of each class (log scale), then the accuracy on its test images.</p>
<div class="scroll">{{ classes_chart }}</div>
<details><summary>All numbers as a table</summary><div class="scroll"><table>
<thead><tr><th scope="col">class</th><th scope="col">training images</th>{% for row in class_rows %}<th scope="col">{{ row.title }}</th>{% endfor %}</tr></thead>
<tbody>{% for name in class_names %}{% set label = loop.index0 %}<tr><td>{{ name }}</td><td>{{ metrics.train_counts[label] }}</td>{% for row in class_rows %}<td>{{ row.values[label]|percent }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
</section>
{% if agreement %}<section>
<h2>Agreement with the teacher</h2>
<p class="lead">Test images of each class on which a head names the class that the teacher names, right or wrong.</p>
<div class="scroll">{{ agreement }}</div>
</section>{% endif %}
<section>
<h2>Answers</h2>
<p class="lead">Confusion: true classes down, answered ones across, both in label order; the stronger a cell, the larger its share of its row. Reliability: how often a model is right when it is so sure; discs below the diagonal are over-confident, the area is the share of the images. A cosine head gives unscaled cosines, whose softmax is flat by construction.</p>
<div class="grid pair">{% for row in answers %}<div><h3>{{ row.title }} <span class="muted">· ECE {{ row.ece|percent }} %</span></h3>
<figure>{{ row.confusion }}</figure><figure>{{ row.reliability }}</figure></div>{% endfor %}</div>
</section>
<section>
<h2>Blocks</h2>
<p class="lead">How far each head looks, and how many directions the token that carries the answer uses, block by block.</p>
<div class="grid pair">{% for chart in blocks.charts %}<figure><figcaption>{{ chart.title }}</figcaption>{{ chart.picture }}</figure>{% endfor %}</div>
{% for sentence in blocks.missing %}<p class="muted">Not shown for {{ sentence }}.</p>{% endfor %}
</section>
<section>
<h2>Training</h2>
<div class="grid wide">
{% for stage in training %}<div><h3><span class="dot" style="background:{{ stage.colour }}"></span>{{ stage.name }} <span class="muted">· {{ stage.epochs }} epochs</span></h3>
{% for chart in stage.charts %}<figure><figcaption>{{ chart.title }}</figcaption>{{ chart.picture }}</figure>{% endfor %}
<details><summary>All epochs as a table</summary><div class="scroll"><table>
<thead><tr><th scope="col">epoch</th>{% for name in stage.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in stage.rows %}<tr><td>{{ loop.index0 }}</td>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details></div>
{% endfor %}</div>
</section>
<section>
<h2>Structure</h2>
<p class="lead">Widths of each block before (dashed) and after pruning. Residual width: {{ before.emb }} before, {{ after.emb }} after.</p>
<div class="grid">{% for chart in widths %}<figure><figcaption>{{ chart.title }}</figcaption>{{ chart.picture }}</figure>{% endfor %}</div>
<details><summary>All widths as a table</summary><div class="scroll"><table>
<thead><tr><th scope="col">block</th>{% for chart in widths %}<th scope="col">{{ chart.title }}</th>{% endfor %}</tr></thead>
<tbody>{% for block in range(before.h|length) %}<tr><td>{{ block }}</td>{% for chart in widths %}<td>{{ chart.before[block] }} → {{ chart.after[block] }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
</section>
<section>
<h2>Run</h2>
{% if run %}<p class="lead">Stages in order; an arc runs from each input to its stage. A hit was taken from the store, an executed stage was computed now.</p>
<div class="scroll">{{ run }}</div>{% else %}<p class="lead">This report was made outside a run, so no stage has a status.</p>{% endif %}
</section>
<section>
<h2>Lineage</h2>
<p class="lead">What this report was made from, back to the dataset, each as the SHA-256 of its files. <code>vitops lineage {{ package[:12] }}</code> shows the receipts.</p>
{% macro branch(node) %}<li><b>{{ node.name }}</b> {% if node.digest %}<code>{{ node.digest[:12] if node.seen else node.digest }}</code>{% endif %}{% if node.seen %} <span class="muted">see above</span>{% endif %}{% if node.inputs %}<ul>{% for child in node.inputs %}{{ branch(child) }}{% endfor %}</ul>{% endif %}</li>{% endmacro %}
<div class="scroll"><ul class="tree">{{ branch(lineage) }}</ul></div>
</section>
</main>
<footer>Latency is measured: it differs between machines and between runs, and nothing exact reads it. Every other number is read from the artifact named beside it.</footer>
</body>
</html>
"""
