//! Models from the Hugging Face hub, by `ORG/NAME` or `ORG/NAME@REVISION`.
//!
//! [`Hub::snapshot`] gives a directory with the files of a model that Temper reads. They are in the cache of
//! `huggingface_hub`, in its layout, so each of the two finds what the other has downloaded:
//!
//! ```text
//! models--ORG--NAME/refs/REVISION            the commit that a branch or tag had when it was last asked for
//! models--ORG--NAME/blobs/ETAG               the bytes of a file; ETAG.incomplete while it is downloaded
//! models--ORG--NAME/snapshots/COMMIT/FILE    a relative link to its blob
//! .locks/models--ORG--NAME/ETAG.lock         held by the process that downloads a blob
//! ```
//!
//! **Invariant:** a blob has its name only after its size and, where the hub names it, its SHA-256 were checked.
//! **Invariant:** no name that the server sends leads out of the directory of its model.
//! **Invariant:** the token goes to the host of the endpoint and to no other.

mod cache;
mod client;
mod environment;
mod error;
mod files;
mod hub;
mod spec;

pub use error::Error;
pub use hub::{Hub, Parts, Patience, Progress, Snapshot, Watch};
pub use spec::RepoSpec;

/// The snippets of the README are compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
