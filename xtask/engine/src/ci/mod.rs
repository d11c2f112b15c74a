//! stub
pub mod lint;
mod yaml;
