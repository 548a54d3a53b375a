//! Holds no code: the tests are in `parity` and `e2e`.
