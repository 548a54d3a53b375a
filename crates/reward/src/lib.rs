//! Stage 2: learn to score from comparisons
