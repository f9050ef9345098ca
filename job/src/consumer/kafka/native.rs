//! The one door to librdkafka's C interface: what the `rdkafka` crate does not offer. Every function takes a live
//! client, calls C functions that may be called from any thread, and frees what it got on every path.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka_sys as sys;

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A `T` of librdkafka's that is freed with the function beside it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// `None` for a null pointer.
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer, free))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, came from librdkafka for us to free, and is freed only here.
        unsafe { (self.1)(self.0) }
    }
}

/// Has a consumer look for its cluster at these brokers, besides where it looks already.
///
/// A client that was told at a bad moment that the cluster has no brokers, as after a pause of all of them, forgets every
/// one it knew, and librdkafka 2.12 then never looks again by itself.
pub(super) fn look_at<C: ConsumerContext>(consumer: &BaseConsumer<C>, brokers: &[String]) {
    tracing::info!("no broker answers: those of the settings are asked anew");
    // Brokers that came from flags hold no zero byte.
    if let Ok(brokers) = CString::new(brokers.join(",")) {
        // SAFETY: the client lives as long as the borrow of its consumer, the text during the call, which copies it.
        unsafe { sys::rd_kafka_brokers_add(consumer.client().native_ptr(), brokers.as_ptr()) };
    }
}

/// The generation in which this consumer is a member of its group; -1 before it is one.
pub(super) fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> i32 {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as the borrow of its consumer; the result is ours to free.
    let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(client) };
    let Some(metadata) = Owned::new(metadata, sys::rd_kafka_consumer_group_metadata_destroy) else {
        return -1;
    };
    // SAFETY: reads a field of what was just handed out.
    unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(metadata.0) }
}

/// The offset after a partition's newest record, as the last fetch answer said; no call to the broker.
pub(super) fn known_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: u32) -> Option<u64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as the borrow; topic and the two numbers outlive the call.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition as i32, &raw mut low, &raw mut high)
    };
    u64::try_from(high).ok().filter(|_| error == NO_ERROR)
}

/// The topic's id as two numbers, both 0 when the broker does not know ids, and how many partitions it has. Waits for
/// the broker, at most 6 s.
///
/// # Errors
/// What the broker or librdkafka says.
pub(super) fn topic<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str) -> Result<((i64, i64), u32), String> {
    const WITHIN_MS: i32 = 5000;
    let client = consumer.client().native_ptr();
    let name = CString::new(topic).map_err(|_| "the topic's name holds a zero byte".to_owned())?;
    let gone = || "librdkafka is out of memory".to_owned();
    // SAFETY: the client outlives queue and options, which are freed before this function's borrow of it ends.
    let queue = Owned::new(unsafe { sys::rd_kafka_queue_new(client) }, sys::rd_kafka_queue_destroy).ok_or_else(gone)?;
    let describe = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: as above.
    let options = unsafe { sys::rd_kafka_AdminOptions_new(client, describe) };
    let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy).ok_or_else(gone)?;
    let mut names = [name.as_ptr()];
    // SAFETY: one name in an array of one; librdkafka copies it.
    let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) };
    let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy).ok_or_else(gone)?;
    let mut said = [0; 256];
    // SAFETY: all four are alive and of one client; the text buffer is as long as it says.
    let event = unsafe {
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, WITHIN_MS, said.as_mut_ptr(), said.len());
        sys::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        sys::rd_kafka_queue_poll(queue.0, WITHIN_MS + 1000)
    };
    let event = Owned::new(event, sys::rd_kafka_event_destroy).ok_or("no answer in time")?;
    // SAFETY: everything below borrows from the event, which outlives it; the count is checked before the one element
    // is read.
    unsafe {
        if sys::rd_kafka_event_error(event.0) != NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event.0)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err("an answer to another question".to_owned());
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if found.is_null() || count != 1 {
            return Err("no answer about the topic".to_owned());
        }
        let found = *found;
        let error = sys::rd_kafka_TopicDescription_error(found);
        if !error.is_null() && sys::rd_kafka_error_code(error) != NO_ERROR {
            return Err(text(sys::rd_kafka_error_string(error)));
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(found, &raw mut partitions);
        let id = sys::rd_kafka_TopicDescription_topic_id(found);
        let id = match id.is_null() {
            true => (0, 0),
            false => (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id)),
        };
        Ok((id, partitions as u32))
    }
}

/// # Safety
/// `pointer` is null or a C text that lives during the call.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
