//! Chromium shows the page against the real stack: Kafka, Redis, logic, job and a comet. Screenshots are kept.

mod browser;
mod relay;

use std::time::Duration;

use browser::{Browser, DESKTOP, PHONE};
use e2e::eventually;
use e2e::ports::Port;
use e2e::program::{Options, Stack, get, post};
use relay::Relay;

const SOON: Duration = Duration::from_secs(60);
/// A comet that died with all it knew, and the node list's wait before a client comes back.
const BACK: Duration = Duration::from_secs(120);
/// What we promise of an online count after a comet died.
const COUNTED: Duration = Duration::from_secs(20);

/// Pushes `text` to a room of type `live`, again while a part of the stack is just coming back.
async fn push(stack: &Stack, room: &str, text: &str) {
    let path = format!("/goim/push/room?operation=1000&type=live&room={room}");
    let pushed = eventually(SOON, "a push to be taken", || async {
        let (status, answer) = post(stack.http(), &path, text.to_owned()).await?;
        anyhow::ensure!(status == 200 && answer.starts_with(r#"{"code":0"#), "{status} {answer}");
        Ok(())
    });
    pushed.await.unwrap();
}

/// Asks the page until it says yes.
async fn page_says(browser: &mut Browser, what: &str, script: &str, deadline: Duration) {
    let end = tokio::time::Instant::now() + deadline;
    while !browser.evaluate::<bool>(script).await.unwrap() {
        if tokio::time::Instant::now() > end {
            let status: String = browser.evaluate("document.querySelector('#status').title").await.unwrap();
            let (kept, problems) =
                (browser.screenshot("page-failed").await.unwrap(), browser.problems().await.unwrap());
            panic!("{what}: not within {deadline:?}; the page says `{status}`, {problems:?}, see {}", kept.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const ONLINE: &str = "document.querySelector('#status').dataset.state === 'online'";
const NOT_ONLINE: &str = "document.querySelector('#status').dataset.state !== 'online'";

fn shows(text: &str) -> String {
    format!("window.imcluster.received.includes({})", serde_json::to_string(text).unwrap())
}

/// The page is in exactly these rooms, as its chips show them.
async fn in_rooms(browser: &mut Browser, rooms: &[&str]) {
    let chips =
        "JSON.stringify([...document.querySelectorAll('.room-chip[data-state=joined]')].map(c => c.dataset.room))";
    let wanted = serde_json::to_string(&serde_json::to_string(rooms).unwrap()).unwrap();
    page_says(browser, "back in its rooms", &format!("{chips} === {wanted}"), SOON).await;
}

/// One connection in each room, as the page shows it and as logic answers.
async fn one_is_online(browser: &mut Browser, stack: &Stack, ids: &[&str]) {
    let query: String = ids.iter().map(|id| format!("&rooms={id}")).collect();
    let wanted: serde_json::Value =
        ids.iter().map(|id| ((*id).to_owned(), 1.into())).collect::<serde_json::Map<_, _>>().into();
    let counted = eventually(COUNTED, "logic to count one connection in each room", || async {
        let (_, text) = get(stack.http(), &format!("/goim/online/room?type=live{query}")).await?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        anyhow::ensure!(answer["data"] == wanted, "{text}");
        Ok(())
    });
    counted.await.unwrap();
    let shown = "document.querySelector('#online-count').textContent === '1' && \
        [...document.querySelectorAll('.room-chip .n')].every(n => n.textContent === '1')";
    page_says(browser, "the page to show one connection in each room", shown, COUNTED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_receives_all_in_order_and_comes_back_after_a_dead_comet_and_a_cut_wire() {
    let mut browser = Browser::start().await.unwrap();
    // The node list sends the page to this port of `comet1.localhost`: what stands there is the wire that is cut.
    let wire = Port::free().unwrap();
    let logic = ["--host-domain", ".localhost", "--ws-port", &wire.number().to_string(), "--backoff-max-delay", "3"];
    let logic = logic.map(str::to_owned).to_vec();
    let stack = Stack::start(Options { logic, ..Options::default() }).await.unwrap();
    let relay = Relay::start(wire.address(), stack.comet(0).websocket()).await.unwrap();

    let url = format!("http://{}/?room=lobby&name=Amber+Fox&mid=4242", stack.http());
    browser.open(&url, DESKTOP).await.unwrap();
    page_says(&mut browser, "the page to be online", ONLINE, SOON).await;
    in_rooms(&mut browser, &["live://lobby"]).await;
    browser.fill("#room-input", "news").await.unwrap();
    browser.click("#join").await.unwrap();
    let rooms = ["live://lobby", "live://news"];
    in_rooms(&mut browser, &rooms).await;
    one_is_online(&mut browser, &stack, &["lobby", "news"]).await;

    a_thousand_arrive_in_order(&mut browser, &stack).await;
    every_target_of_the_form_arrives(&mut browser).await;

    stack.comet(0).program.kill();
    page_says(&mut browser, "the page to notice a dead comet", NOT_ONLINE, SOON).await;
    stack.comet(0).program.restart().await.unwrap();
    page_says(&mut browser, "the page to be back after a dead comet", ONLINE, BACK).await;
    in_rooms(&mut browser, &rooms).await;
    still_served(&mut browser, &stack, "after the restart").await;
    one_is_online(&mut browser, &stack, &["lobby", "news"]).await;

    let first: String = browser.evaluate("window.imcluster.client.key").await.unwrap();
    let (connects, cut) = (connects(&stack).await, relay.cut());
    assert!(cut > 0, "nothing to cut: the page is not connected through the wire");
    eventually(BACK, "the page to connect again", || async { self::connects(&stack).await > connects }).await.unwrap();
    page_says(&mut browser, "the page to be back after a cut", ONLINE, BACK).await;
    in_rooms(&mut browser, &rooms).await;
    still_served(&mut browser, &stack, "after the cut").await;
    one_is_online(&mut browser, &stack, &["lobby", "news"]).await;
    assert_eq!(browser.evaluate::<String>("window.imcluster.client.key").await.unwrap(), first, "it is who it was");

    let missed: String = browser.evaluate("document.querySelector('#gap-count').textContent").await.unwrap();
    assert_eq!(missed, "0", "no push went by");
    let repeated = "new Set(window.imcluster.received).size === window.imcluster.received.length";
    assert!(browser.evaluate::<bool>(repeated).await.unwrap(), "none came twice");
    look(&mut browser, &stack, &url).await;
    browser.close().await.unwrap();
}

/// How many clients comet has let in.
async fn connects(stack: &Stack) -> u64 {
    let (_, text) = stack.comet(0).program.get("/metrics").await.unwrap();
    let line = text.lines().find(|line| line.starts_with("imcluster_comet_authenticated_total "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no handshakes in:\n{text}"))
}

async fn a_thousand_arrive_in_order(browser: &mut Browser, stack: &Stack) {
    let mut due = tokio::time::interval(Duration::from_millis(4));
    for number in 0..1000 {
        due.tick().await;
        push(stack, "lobby", &format!("push {number}")).await;
    }
    page_says(browser, "all thousand", "window.imcluster.received.length >= 1000", SOON).await;
    let received: Vec<String> = browser.evaluate("window.imcluster.received").await.unwrap();
    let sent: Vec<String> = (0..1000).map(|number| format!("push {number}")).collect();
    assert_eq!(received, sent);
    let listed = "(list => list.length > 1 && list.every((li, i) => li.dataset.text === `push ${1000 - list.length + i}`))\
        ([...document.querySelectorAll('#messages li')])";
    page_says(browser, "the list to end in the last pushes, in order", listed, SOON).await;
    page_says(
        browser,
        "the count of pushes",
        "document.querySelector('#received-count').textContent === '1,000'",
        SOON,
    )
    .await;
}

/// A person's way: text into the form, the button, and there it is, with its latency.
async fn every_target_of_the_form_arrives(browser: &mut Browser) {
    for target in ["room", "mid", "all"] {
        let text = format!("from the form to {target}");
        browser.select("#push-target", target).await.unwrap();
        browser.fill("#push-text", &text).await.unwrap();
        browser.click("#push-send").await.unwrap();
        page_says(browser, &text, &shows(&text), SOON).await;
        let answered = "document.querySelector('#push-result').dataset.kind === 'good'";
        page_says(browser, "the push to be accepted", answered, SOON).await;
    }
    browser.select("#push-target", "room").await.unwrap();
    let latency = "document.querySelector('#messages li:last-child .latency').textContent.endsWith('ms')";
    page_says(browser, "the latency of a push from the form", latency, SOON).await;
}

async fn still_served(browser: &mut Browser, stack: &Stack, when: &str) {
    for room in ["lobby", "news"] {
        let text = format!("{room} {when}");
        push(stack, room, &text).await;
        page_says(browser, &text, &shows(&text), SOON).await;
    }
}

/// What a visitor sees, on a desk and on a phone, with a few people talking.
async fn look(browser: &mut Browser, stack: &Stack, url: &str) {
    for (name, screen) in [("page-desktop", DESKTOP), ("page-phone", PHONE)] {
        browser.open(url, screen).await.unwrap();
        page_says(browser, "the page to be online", ONLINE, SOON).await;
        one_is_online(browser, stack, &["lobby"]).await;
        let talk = [
            ("Coral Otter", "Did the deploy go out?"),
            ("Silver Lynx", "Ten minutes ago, nobody noticed"),
            ("Amber Fox", "That is the point"),
        ];
        for (from, text) in talk {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
            let said = serde_json::json!({"text": text, "from": from, "sentMs": now as u64}).to_string();
            push(stack, "lobby", &said).await;
            page_says(browser, text, &shows(text), SOON).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert!(browser.evaluate::<bool>(fits).await.unwrap(), "{name} scrolls sideways");
        // Far enough on their way across the stage to be read.
        tokio::time::sleep(Duration::from_secs(2)).await;
        browser.screenshot(name).await.unwrap();
        let _below: Option<()> =
            browser.evaluate("void document.querySelector('.totals').scrollIntoView()").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        browser.screenshot(&format!("{name}-below")).await.unwrap();
        assert_eq!(browser.problems().await.unwrap(), Vec::<String>::new(), "{name}");
    }
}
