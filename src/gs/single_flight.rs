//! One request for all who want the same thing at once.

use std::collections::HashMap;
use std::hash::Hash;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// A request under way. Its result goes to all who wait for it.
pub(super) type Flight<V> = Shared<BoxFuture<'static, V>>;

/// The requests under way, by what they are for.
///
/// The sharing is [`Shared`]'s: whoever waits drives the request, so that it goes on when the one
/// who began it goes away. Results are not kept here: each user keeps its own, for a time of its
/// own.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>);

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// The request under way for `key`, whatever comes of it; if there is none, that of `begin`.
    pub(super) fn join<F>(&self, key: K, begin: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.0.lock();
        flights.retain(|_, flight| flight.upgrade().is_some_and(|flight| flight.peek().is_none()));
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = begin().boxed().shared();
        flights.extend(flight.downgrade().map(|weak| (key, weak)));
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Requests that answer their number once they are let go.
    #[derive(Default)]
    struct Server {
        flights: SingleFlight<&'static str, usize>,
        requests: Arc<AtomicUsize>,
        release: Arc<Notify>,
    }

    impl Server {
        fn ask(&self, key: &'static str) -> Flight<usize> {
            let (requests, release) = (Arc::clone(&self.requests), Arc::clone(&self.release));
            self.flights.join(key, || async move {
                let number = requests.fetch_add(1, Ordering::SeqCst);
                release.notified().await;
                number
            })
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_request_is_under_way_has_its_result() {
        let server = Server::default();
        let (first, second) = (server.ask("a"), server.ask("a"));
        assert_eq!(first.clone().now_or_never(), None);
        let third = server.ask("a");

        server.release.notify_one();

        assert_eq!(tokio::join!(first, second, third), (0, 0, 0));
    }

    #[tokio::test]
    async fn who_asks_for_something_else_has_a_request_of_its_own() {
        let server = Server::default();
        let (a, b) = (server.ask("a"), server.ask("b"));

        server.release.notify_one();
        assert_eq!(a.await, 0);
        server.release.notify_one();
        assert_eq!(b.await, 1);
    }

    #[tokio::test]
    async fn who_asks_after_the_result_has_a_request_of_its_own() {
        let server = Server::default();
        let first = server.ask("a");
        server.release.notify_one();
        assert_eq!(first.clone().await, 0);

        let second = server.ask("a");

        server.release.notify_one();
        assert_eq!((second.await, first.await), (1, 0));
    }

    #[tokio::test]
    async fn a_request_goes_on_when_the_one_who_began_it_goes_away() {
        let server = Server::default();
        let first = server.ask("a");
        assert_eq!(first.clone().now_or_never(), None);
        let second = server.ask("a");

        drop(first);

        server.release.notify_one();
        assert_eq!(second.await, 0);
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_is_forgotten() {
        let server = Server::default();
        drop(server.ask("a"));

        let _other = server.ask("b");

        assert_eq!(server.flights.0.lock().keys().copied().collect::<Vec<_>>(), ["b"]);
    }
}
