//! Backends of [`lastbyte`] and the choice among them at run time.
//!
//! ```no_run
//! use lastbyte::{Choice, DriverConfig, EventQueue, Restrictions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
//! println!("{} on {}", backend.kind(), backend.report());
//! let queue = EventQueue::default();
//! let mut driver = backend.driver(&DriverConfig::default(), Box::new(queue.sink()))?;
//! driver.turn(Some(std::time::Duration::ZERO))?;
//! # Ok(()) }
//! ```
