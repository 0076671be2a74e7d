//! A queue for what there is mostly one of.

use std::collections::VecDeque;
use std::iter::Chain;
use std::ops::{Index, IndexMut};

/// A queue that holds its oldest element inline.
///
/// A connection that answers one request at a time keeps its transfer beside
/// its other state, in cache lines that are needed anyway, and an idle
/// connection has no memory elsewhere.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// `None` only if `rest` is empty.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { first: None, rest: VecDeque::new() }
    }

    pub(super) fn push_back(&mut self, element: T) {
        if self.first.is_none() {
            self.first = Some(element);
        } else {
            self.rest.push_back(element);
        }
    }

    /// Drops the oldest element.
    pub(super) fn drop_first(&mut self) {
        self.first = self.rest.pop_front();
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn get(&self, n: usize) -> Option<&T> {
        if n == 0 { self.first.as_ref() } else { self.rest.get(n - 1) }
    }

    pub(super) fn get_mut(&mut self, n: usize) -> Option<&mut T> {
        if n == 0 { self.first.as_mut() } else { self.rest.get_mut(n - 1) }
    }

    pub(super) fn iter(
        &self,
    ) -> Chain<std::option::Iter<'_, T>, std::collections::vec_deque::Iter<'_, T>> {
        self.first.iter().chain(&self.rest)
    }

    pub(super) fn iter_mut(
        &mut self,
    ) -> Chain<std::option::IterMut<'_, T>, std::collections::vec_deque::IterMut<'_, T>> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    /// Position of the first element that is not in the part that comes first.
    pub(super) fn partition_point(&self, mut is_in: impl FnMut(&T) -> bool) -> usize {
        match &self.first {
            Some(first) if is_in(first) => 1 + self.rest.partition_point(is_in),
            _ => 0,
        }
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;

    fn index(&self, n: usize) -> &T {
        self.get(n).expect("an index within the queue")
    }
}

impl<T> IndexMut<usize> for Queue<T> {
    fn index_mut(&mut self, n: usize) -> &mut T {
        self.get_mut(n).expect("an index within the queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_as_any_queue(steps in prop::collection::vec(any::<Option<u8>>(), 0..40)) {
            let (mut queue, mut model) = (Queue::new(), VecDeque::new());
            for step in steps {
                match step {
                    Some(element) => {
                        queue.push_back(element);
                        model.push_back(element);
                    }
                    None => {
                        queue.drop_first();
                        model.pop_front();
                    }
                }
                prop_assert_eq!(queue.first(), model.front());
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert!(queue.iter().eq(&model));
                prop_assert!(queue.iter_mut().map(|n| *n).eq(model.iter().copied()));
                for n in 0..=model.len() {
                    prop_assert_eq!(queue.get(n), model.get(n));
                    prop_assert_eq!(queue.get_mut(n), model.get_mut(n));
                }
            }
        }

        #[test]
        fn a_partition_is_found(mut elements in prop::collection::vec(any::<u8>(), 0..9), at: u8) {
            elements.sort_unstable();
            let mut queue = Queue::new();
            for &element in &elements {
                queue.push_back(element);
            }
            let expected = elements.partition_point(|&element| element < at);
            prop_assert_eq!(queue.partition_point(|&element| element < at), expected);
        }
    }
}
