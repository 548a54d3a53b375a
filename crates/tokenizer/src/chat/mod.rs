//! Conversations: messages with roles, prompts that are made of them, and the chat templates that write them as text.

mod date;
mod environment;
mod generation;
mod json;
mod message;
mod template;

pub use date::Date;
pub use message::{Message, Prompt, PromptRef};
pub use template::ChatTemplate;
