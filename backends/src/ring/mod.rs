//! The io_uring backend: the driver of [`crate::readiness`] over a selector
//! that completes by itself what the kernel can, and tells of readiness for
//! what it cannot.

mod backend;
mod in_flight;
mod port;
mod selector;
#[cfg(test)]
mod tests;

pub(crate) use backend::io_uring;
pub(crate) use selector::FULL;
