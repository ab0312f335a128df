"""Model servers over HTTP, for whoever asks them: evaluation and remote teachers. Knows nothing of training."""
