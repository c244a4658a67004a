"""Knowledge distillation for PyTorch Lightning."""
