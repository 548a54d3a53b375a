//! Holds no code: the tests are in `parity`, `oracles` and `e2e`.
