//! Scores of answers from outside of Temper: a program that speaks JSON lines, or an HTTP endpoint.
//!
//! # A program
//!
//! [`Program`] is started once and asked as often as there are rollouts. For every answer it reads one line
//!
//! ```json
//! {"prompt": "Capital of France?", "completion": "Paris.", "ended": true, "row": {"answer": "Paris"}}
//! ```
//!
//! and writes one line, in the same order: a number, or an object with a `score`. `row` has the other columns of the
//! prompt's row, and is left out where there are none. Whatever the program writes to standard error is passed on. In
//! Python, for example:
//!
//! ```python
//! import json, sys
//! for line in sys.stdin:
//!     answer = json.loads(line)
//!     print(float(answer["row"]["answer"] in answer["completion"]), flush=True)
//! ```
//!
//! # An endpoint
//!
//! [`Endpoint`] posts all answers of a rollout at once, and tries again where that may help.
//!
//! **Invariant:** whatever the other side does, a call ends within its time limit, with as many finite scores as there
//! were answers or with one error, and memory stays bounded. It also ends within a second of an interrupt ([`Stop`]),
//! and no process that a program has started outlives it.

mod address;
mod endpoint;
mod error;
mod program;
mod stop;

pub use address::masked;
pub use endpoint::{Endpoint, Retries};
pub use error::{Error, Status};
pub use program::{Answer, Program, Row};
pub use stop::Stop;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
