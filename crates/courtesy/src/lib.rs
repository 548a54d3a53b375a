//! A synthetic task with an exact judge: short questions, graded answers, and the gold rule
