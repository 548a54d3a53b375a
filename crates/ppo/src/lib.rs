//! Stage 3: optimise a score, stay near the reference
