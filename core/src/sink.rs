//! Where events go.

use crate::Event;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Takes a driver's events, in order, each exactly once.
///
/// A driver owns its sink and calls it only from [`Driver::turn`],
/// [`Driver::deliver`], and when the driver is dropped, never from inside a
/// submission, so a sink may hold whatever the caller of these does not. It
/// should be quick and must not block. If it panics, the panic leaves the call;
/// the event at hand is the sink's loss, all others are delivered by the next.
///
/// [`Driver::turn`]: crate::Driver::turn
/// [`Driver::deliver`]: crate::Driver::deliver
pub trait CompletionSink {
    /// Takes one event.
    fn complete(&mut self, event: Event);

    /// Takes all of `events`, one or more, in order. A sink that queues them can
    /// do so with one exchange. What a panic leaves in there is delivered by the
    /// next `turn`.
    fn complete_all(&mut self, events: &mut VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            self.complete(event);
        }
    }
}

impl<S: CompletionSink + ?Sized> CompletionSink for Box<S> {
    fn complete(&mut self, event: Event) {
        (**self).complete(event);
    }

    fn complete_all(&mut self, events: &mut VecDeque<Event>) {
        (**self).complete_all(events);
    }
}

/// A closure as a sink.
///
/// ```
/// use lastbyte::{CompletionSink, Event, SinkFn};
/// let sink: Box<dyn CompletionSink> = Box::new(SinkFn(|event: Event| println!("{event:?}")));
/// # drop(sink);
/// ```
pub struct SinkFn<F>(pub F);

impl<F: FnMut(Event)> CompletionSink for SinkFn<F> {
    fn complete(&mut self, event: Event) {
        (self.0)(event);
    }
}

impl<F> fmt::Debug for SinkFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkFn").finish_non_exhaustive()
    }
}

/// A sink for another thread: the driver's end of a channel. Events that
/// nobody receives any more are dropped, and the payloads in them freed.
impl CompletionSink for Sender<Event> {
    fn complete(&mut self, event: Event) {
        drop(self.send(event));
    }
}

/// A channel to another thread, as sink and receiver.
#[must_use]
pub fn event_channel() -> (Sender<Event>, Receiver<Event>) {
    channel()
}

/// Events of a driver that is turned by the thread that handles them: the
/// cheapest sink.
///
/// ```
/// use lastbyte::{CompletionSink, EventQueue};
/// let queue = EventQueue::default();
/// let sink: Box<dyn CompletionSink> = Box::new(queue.sink());
/// // … hand `sink` to a driver, then after each turn:
/// while let Some(event) = queue.pop() {
///     drop(event);
/// }
/// # drop(sink);
/// ```
#[derive(Clone, Default)]
pub struct EventQueue {
    events: Rc<RefCell<VecDeque<Event>>>,
}

impl EventQueue {
    /// The end to give to the driver.
    #[must_use]
    pub fn sink(&self) -> EventQueueSink {
        EventQueueSink { events: Rc::clone(&self.events) }
    }

    /// The oldest event.
    #[must_use]
    pub fn pop(&self) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let event = events.pop_front();
        if event.is_none() {
            // Makes the next ones use the same memory, which is in the cache.
            events.clear();
        }
        event
    }

    /// Events waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.borrow().len()
    }

    /// Whether none is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueue").field("len", &self.len()).finish()
    }
}

/// The driver's end of an [`EventQueue`].
pub struct EventQueueSink {
    events: Rc<RefCell<VecDeque<Event>>>,
}

impl CompletionSink for EventQueueSink {
    fn complete(&mut self, event: Event) {
        self.events.borrow_mut().push_back(event);
    }

    fn complete_all(&mut self, events: &mut VecDeque<Event>) {
        let mut queue = self.events.borrow_mut();
        if queue.is_empty() {
            std::mem::swap(&mut *queue, events);
        } else {
            queue.append(events);
        }
    }
}

impl fmt::Debug for EventQueueSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueueSink").finish_non_exhaustive()
    }
}
