//! An ETag cache for Pylons: a store of the validators that are known, each with the records that its page was made from.

use http::Request;
use larder::http::{Depends, ResponseCache, ResponseCacheBuilder};
use larder::{Change, Groups, InMemoryRemote, Namespace};

use crate::http::{Got, Page, Site, builder, depending, page};
use crate::rules::HOUR;

/// Makes a page of the records in its path, as in `/1+2`, whose content is dear and whose validator is its version. Only the
/// validator is remembered: browsers keep the page, and are to ask each time.
fn render(run: usize, request: &Request<()>) -> Page {
    let records: Vec<String> = request.uri().path()[1..].split('+').map(|id| format!("record:{id}")).collect();
    let tag = format!("\"v{run}\"");
    depending(Depends::on(records), page(&[("etag", &tag), ("cache-control", "no-cache")], &format!("render {run}")))
}

fn site(builder: ResponseCacheBuilder) -> Site {
    Site::with(builder, render)
}

/// Asks as a browser that has these versions of a page.
fn revisit(site: &Site, uri: &str, tags: &str) -> Got {
    site.get(uri, &[("if-none-match", tags)])
}

#[test]
fn a_known_validator_is_answered_304_and_the_handler_does_not_run() {
    let site = site(builder().0);
    let tag = site.get("/7", &[]).header("etag").to_owned();
    for _ in 0..3 {
        let got = revisit(&site, "/7", &tag);
        assert_eq!((got.status, got.body.as_str(), got.header("etag")), (304, "", tag.as_str()));
    }
    assert_eq!(site.runs(), 1);
}

#[test]
fn an_unknown_validator_runs_the_handler() {
    let site = site(builder().0);
    site.get("/7", &[]);
    // One of another version, of another page, and none at all.
    assert_eq!(revisit(&site, "/7", "\"v0\"").body, "render 2");
    assert_eq!(revisit(&site, "/8", "\"v2\"").body, "render 3");
    assert_eq!(site.get("/7", &[]).body, "render 4");
    assert_eq!(site.runs(), 4);
}

#[test]
fn removing_a_record_drops_every_validator_made_from_it() {
    let site = site(builder().0);
    let uris = ["/7", "/7+8", "/6+7", "/8"];
    let tags = uris.map(|uri| site.get(uri, &[]).header("etag").to_owned());
    assert!(site.cache.invalidate_group("record:7"));
    let again = [0, 1, 2, 3].map(|at| revisit(&site, uris[at], &tags[at]).status);
    // What does not show the record is known as before.
    assert_eq!(again, [200, 200, 200, 304]);
}

#[test]
fn a_browser_may_have_many_versions() {
    let site = site(builder().0);
    let tag = site.get("/7", &[]).header("etag").to_owned();
    for tags in [format!("\"x\", {tag}"), format!("{tag}, \"x\""), format!("\"x\",W/{tag} , \"y\""), "*".to_owned()] {
        assert_eq!(revisit(&site, "/7", &tags).status, 304, "{tags}");
    }
    assert_eq!(site.runs(), 1);
    assert_eq!(revisit(&site, "/7", "\"x\", \"y\"").status, 200);
}

/// There a thread listened to what the database said of its changes.
#[test]
fn a_change_feed_drops_validators_without_the_help_of_the_code_that_saves() {
    let groups = Groups::new();
    let site = site(builder().0.groups(groups.clone()));
    let tags = ["/7", "/8"].map(|uri| site.get(uri, &[]).header("etag").to_owned());
    groups.invalidate_from([Change::invalidate(["record:7"])]);
    assert_eq!([("/7", &tags[0]), ("/8", &tags[1])].map(|(uri, tag)| revisit(&site, uri, tag).status), [200, 304]);
}

/// In two processes, of which neither saves.
#[test]
fn a_change_feed_drops_the_validators_of_all_processes() {
    let store = InMemoryRemote::new();
    let [(one, ours), (other, theirs)] = [(); 2].map(|()| {
        let namespace = Namespace::builder("site", store.clone()).poll_interval(HOUR).trust(2 * HOUR).build().unwrap();
        let site = site(ResponseCache::builder().capacity(1 << 20).namespace(&namespace));
        (namespace, site)
    });
    let tag = ours.get("/7", &[]).header("etag").to_owned();
    assert_eq!((revisit(&theirs, "/7", &tag).status, theirs.runs()), (304, 0));
    assert!(one.invalidate_from([Change::invalidate(["record:7"])]).is_acknowledged());
    other.poll_now().unwrap();
    revisit(&theirs, "/7", &tag);
    assert_eq!((ours.runs(), theirs.runs()), (1, 1));
}
