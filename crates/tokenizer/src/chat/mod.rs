//! Conversations: messages with roles, prompts that are made of them, and the chat templates that write them as text.

mod conversation;
mod date;
pub(crate) mod encoder;
mod environment;
mod generation;
mod json;
mod message;
mod template;
mod transcript;

pub use conversation::{EncodedConversation, RenderedConversation};
pub use date::Date;
pub use message::{Message, Prompt, PromptRef};
pub use template::ChatTemplate;
pub(crate) use transcript::messages_of_transcript;
