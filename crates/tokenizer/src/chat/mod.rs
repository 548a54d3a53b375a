//! Conversations: messages with roles, and prompts that are made of them.

mod message;

pub use message::{Message, Prompt, PromptRef};
