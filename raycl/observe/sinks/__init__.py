"""Where a run may be followed beside the store: TensorBoard, Weights & Biases, MLflow."""
