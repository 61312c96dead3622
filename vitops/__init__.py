"""vitops: a versioned image dataset goes in; an audited, compressed, exportable vision transformer comes out."""

from vitops import torchvision_ops

__version__ = "0.1.0"

torchvision_ops.install()
