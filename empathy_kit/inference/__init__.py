"""A trained model in use: from Python, over tables of any size, exported, published, and in scikit-learn."""
