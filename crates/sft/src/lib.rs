//! Stage 1: imitate demonstrations
