"""Global structural pruning of vision transformers by Hessian-aware saliency.

Source: Yang et al., "Global Vision Transformer Pruning with Hessian-Aware Saliency" (CVPR 2023, arXiv 2110.04869).
"""
