//! A configurable decoder: token ids in, tensors out
