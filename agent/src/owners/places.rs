//! How many starts of an owner may be under way.

use std::sync::Arc;

use super::{Owner, Owners};

/// The right to have one start under way, until it is dropped.
#[derive(Debug)]
pub struct StartPlace(Arc<Owner>);

impl Owners {
    /// Waits until one more start of the owner may be under way, by their budget.
    pub async fn start_place(&self, owner: &str) -> StartPlace {
        let owner = self.owner(owner);
        loop {
            let told = owner.place.notified();
            tokio::pin!(told);
            // From here on nothing is missed.
            told.as_mut().enable();
            if owner.lock().take_place() {
                break;
            }
            told.await;
        }
        StartPlace(owner)
    }
}

impl Drop for StartPlace {
    fn drop(&mut self) {
        self.0.lock().give_place_back();
        self.0.place.notify_one();
    }
}
