"""Networks of timm and torchvision as rows of a model YAML."""
