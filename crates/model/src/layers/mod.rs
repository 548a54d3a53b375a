//! The layers that decoders are made of: each formula once.

pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod dropout;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod positions;
pub(crate) mod rotary;
