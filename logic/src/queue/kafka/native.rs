//! The one door to librdkafka's C interface: what the `rdkafka` crate does not offer.
#![allow(unsafe_code)]

use std::ffi::CString;

use rdkafka::client::{Client, ClientContext};

/// Has a client look for its cluster at these brokers, besides where it looks already.
///
/// A client that was told at a bad moment that the cluster has no brokers, as after a pause of all of them, forgets every
/// one it knew, and librdkafka 2.12 then never looks again by itself.
pub(super) fn look_at<C: ClientContext>(client: &Client<C>, brokers: &[String]) {
    tracing::info!("no broker answers: those of the settings are asked anew");
    // Brokers that came from flags hold no zero byte.
    if let Ok(brokers) = CString::new(brokers.join(",")) {
        // SAFETY: the client lives as long as its borrow, the text during the call, which copies it.
        unsafe { rdkafka_sys::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    }
}
