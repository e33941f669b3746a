//! Bugs that are planted into a copy of the library, one at a time, to see that the simulation finds them.
//!
//! Most drop one of the rules that the protocol needs; the others drop what else the promises rest on.
//!
//! One rule is not among them: that tokens which are known count only under the trust lease (R5). Whoever asks for them has asked
//! for its standing first, and what is promised is about calls that begin after the bound; so it takes a call that is held up
//! between the two. The model of the protocol finds it: `larder-protocol --without r5_judges_under_trust`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::theme::Theme;

/// A change that breaks something.
struct Planted {
    name: &'static str,
    /// What the plans are about that it is looked for with.
    theme: Theme,
    what: &'static str,
    edits: &'static [Edit],
}

/// What is in a file once, and what takes its place, where `HERE` says whether this bug is the one.
struct Edit {
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

const fn edit(file: &'static str, find: &'static str, replace: &'static str) -> Edit {
    Edit { file, find, replace }
}

const PLANTED: &[Planted] = &[
    Planted {
        name: "R1",
        theme: Theme::Keys,
        what: "removals are announced before they are done",
        edits: &[
            edit(
                "src/tiered/remove.rs",
                "        for (index, reply) in core.run(caller, requests).await.into_iter().enumerate() {",
                "        if HERE {
            let sender = self.remote.inbox.sender;
            let early: Vec<News> =
                keys.iter().map(|at| News { moved: Moved::KeyRemove(at.fingerprint), sender }).collect();
            let _ = core.announce(caller, &early).await;
        }
        for (index, reply) in core.run(caller, requests).await.into_iter().enumerate() {",
            ),
            edit(
                "src/tiered/remove.rs",
                "if core.settings.announce != Announce::Groups\n            &&",
                "if core.settings.announce != Announce::Groups\n            && !HERE &&",
            ),
        ],
    },
    Planted {
        name: "R2-after",
        theme: Theme::Bumps,
        what: "a bump has no entry behind its token",
        edits: &[edit(
            "src/broadcast/announce.rs",
            ".chain(appends()).chain([read])",
            ".chain(appends().filter(|_| !HERE)).chain([read])",
        )],
    },
    Planted {
        name: "R2-before",
        theme: Theme::Late,
        what: "a bump has no entry before its token",
        edits: &[
            edit(
                "src/broadcast/announce.rs",
                "appends().chain(tokens.iter().map(set))",
                "appends().filter(|_| !HERE).chain(tokens.iter().map(set))",
            ),
            edit(
                "src/broadcast/announce.rs",
                "done.split_at(appends().len())",
                "done.split_at(if HERE { 0 } else { appends().len() })",
            ),
        ],
    },
    Planted {
        name: "R3",
        theme: Theme::Bumps,
        what: "a group gets the same token each time",
        edits: &[edit(
            "src/broadcast/announce.rs",
            "set_token(key.clone(), fresh(),",
            "set_token(key.clone(), if HERE { [7; 8] } else { fresh() },",
        )],
    },
    Planted {
        name: "R4-bump",
        theme: Theme::Bumps,
        what: "a bump is not done again once it is acknowledged",
        edits: &[
            edit(
                "src/namespace/core.rs",
                "        self.move_groups(groups, bump);\n        owed.map_or(Ok(()), Err)",
                "        if !HERE {
            self.move_groups(groups, bump);
        }
        owed.map_or(Ok(()), Err)",
            ),
            edit(
                "src/namespace/core.rs",
                "            self.hear(news);\n        }\n        Ok(())\n    }\n\n    fn owe_groups",
                "            if !HERE {
                self.hear(news);
            }
        }
        Ok(())
    }

    fn owe_groups",
            ),
        ],
    },
    Planted {
        name: "R4-remove",
        theme: Theme::Keys,
        what: "a removal is not done again once it is acknowledged",
        edits: &[edit(
            "src/tiered/remove.rs",
            "copied meanwhile.\n        locally();\n        Bump::from_result",
            "copied meanwhile.\n        if !HERE {
            locally();
        }
        Bump::from_result",
        )],
    },
    Planted {
        name: "R5-moved",
        theme: Theme::Bumps,
        what: "a token is kept though its group moved while it was read",
        edits: &[edit(
            "src/remote/tokens.rs",
            "if stripe.forgotten == *forgotten {",
            "if stripe.forgotten == *forgotten || HERE {",
        )],
    },
    Planted {
        name: "R6-born",
        theme: Theme::Bumps,
        what: "a copy is as young as its arrival",
        edits: &[edit(
            "src/claim.rs",
            "self.store.entry::<true>(self.flight.hash, key, value, self.flight.born, spec, cost)",
            "let now = self.store.settings.groups.generation();
        let born = if HERE { now } else { self.flight.born };
        self.store.entry::<true>(self.flight.hash, key, value, born, spec, cost)",
        )],
    },
    Planted {
        name: "R6-key",
        theme: Theme::Keys,
        what: "news of a key find its entry, not who is about to fill it",
        edits: &[edit(
            "src/shard/state.rs",
            "        self.fence_hash(hash, leaving);\n        freed",
            "        if !HERE {
            self.fence_hash(hash, leaving);
        }
        freed",
        )],
    },
    Planted {
        name: "R7",
        theme: Theme::Late,
        what: "groups named late are recorded as those named early",
        edits: &[edit(
            "src/tiered/write.rs",
            "let late = core.tokens_of_late(caller, &late).await.map(by_group);",
            "let late = if HERE {
            core.tokens_to_record(caller, &late).await
        } else {
            core.tokens_of_late(caller, &late).await
        };
        let late = late.map(by_group);",
        )],
    },
    Planted {
        name: "R8-command",
        theme: Theme::Restarts,
        what: "a version is good on every connection, in another life of the server too",
        edits: &[edit(
            "tests/sim/src/network.rs",
            "is_none_or(|cas| cas.connection == id)",
            "is_none_or(|cas| cas.connection == id || HERE)",
        )],
    },
    Planted {
        name: "R8-journal",
        theme: Theme::Restarts,
        what: "the journal's version is compared across connections",
        edits: &[edit(
            "src/broadcast/follower.rs",
            "let known = self.state.lock().versions.contains(&(item.cas, item.len));",
            "let same = |cas: &Cas| *cas == item.cas || HERE && cas.value == item.cas.value;
        let known = self.state.lock().versions.iter().any(|(cas, len)| same(cas) && *len == item.len);",
        )],
    },
    Planted {
        name: "R9",
        theme: Theme::Keys,
        what: "values are set whatever is there",
        edits: &[edit(
            "src/tiered/write.rs",
            "self.expiry, SetMode::Always, Some(cas))",
            "self.expiry, SetMode::Always, Some(cas).filter(|_| !HERE))",
        )],
    },
    Planted {
        name: "R10-bump",
        theme: Theme::Losses,
        what: "a resync leaves local entries alive",
        edits: &[edit(
            "src/namespace/core.rs",
            "                self.resyncs.fetch_add(1, Ordering::Relaxed);\n                self.groups.clear();",
            "                self.resyncs.fetch_add(1, Ordering::Relaxed);
                if !HERE {
                    self.groups.clear();
                }",
        )],
    },
    Planted {
        name: "R10-tokens",
        theme: Theme::Losses,
        what: "a resync keeps the tokens it knows",
        edits: &[edit(
            "src/namespace/core.rs",
            "                self.known.forget_all();\n                lost =",
            "                if !HERE {
                    self.known.forget_all();
                }
                lost =",
        )],
    },
    Planted {
        name: "R11",
        theme: Theme::Mix,
        what: "a removal leaves queued writes in their queue",
        edits: &[edit(
            "src/namespace/core.rs",
            "self.behind.as_ref().filter(|behind| behind.holds(key))?.purge(key);",
            "self.behind.as_ref().filter(|behind| behind.holds(key) && !HERE)?.purge(key);",
        )],
    },
    Planted {
        name: "R12-key",
        theme: Theme::Debts,
        what: "a key that is owed a deletion is read",
        edits: &[edit(
            "src/namespace/core.rs",
            "self.outbox.owes_item(key) || self.behind",
            "self.outbox.owes_item(key) && !HERE || self.behind",
        )],
    },
    Planted {
        name: "R12-group",
        theme: Theme::Debts,
        what: "a group that is owed a bump is judged by its token",
        edits: &[
            edit("src/namespace/core.rs", "tokens.hard.filter(|_| !hard)", "tokens.hard.filter(|_| !hard || HERE)"),
            edit(
                "src/namespace/core.rs",
                ".filter(|&group| !self.owes_group(group));",
                ".filter(|&group| !self.owes_group(group) || HERE);",
            ),
        ],
    },
    Planted {
        name: "trust-late",
        theme: Theme::Trust,
        what: "trust reaches from the answer, not from the request",
        edits: &[edit(
            "src/broadcast/trust.rs",
            "self.until.extend(Deadline::after(noted, self.lease));",
            "let noted = if HERE { self.clock.now() } else { noted };
        self.until.extend(Deadline::after(noted, self.lease));",
        )],
    },
    Planted {
        name: "trust-early",
        theme: Theme::Trust,
        what: "trust is extended before the news are applied",
        edits: &[edit(
            "src/namespace/core.rs",
            "        match news.moved() {\n            Moves::Nothing => {}",
            "        if HERE {
            self.trust.extend(self.clock.now());
            crate::sync::thread::yield_now();
        }
        match news.moved() {
            Moves::Nothing => {}",
        )],
    },
    Planted {
        name: "trust-unchecked",
        theme: Theme::Trust,
        what: "local hits do not ask for trust",
        edits: &[edit(
            "src/namespace/core.rs",
            "self.trust.holds() || self.settings.on_lost_trust == LostTrust::ServeStale",
            "self.trust.holds() || self.settings.on_lost_trust == LostTrust::ServeStale || HERE",
        )],
    },
    Planted {
        name: "lease",
        theme: Theme::Mix,
        what: "who finds another's lease loads all the same",
        edits: &[edit(
            "src/tiered/consult.rs",
            "Found::Leased(cas) => Verdict::Busy(Some(cas)),",
            "Found::Leased(_) if HERE => Verdict::Vacant(None),
                Found::Leased(cas) => Verdict::Busy(Some(cas)),",
        )],
    },
    Planted {
        name: "purged",
        theme: Theme::Debts,
        what: "a key whose queued write was purged is read before its deletion",
        edits: &[edit(
            "src/broadcast/behind.rs",
            "|| self.shaded.contains_key(key)",
            "|| self.shaded.contains_key(key) && !HERE",
        )],
    },
    Planted {
        name: "overtaken",
        theme: Theme::Bumps,
        what: "a load that news have overtaken is sent",
        edits: &[edit(
            "src/tiered/write.rs",
            "_ if self.local.store.is_overtaken(&out.entry.meta) => *sent = Some(Sent::Overtaken),",
            "_ if self.local.store.is_overtaken(&out.entry.meta) && !HERE => *sent = Some(Sent::Overtaken),",
        )],
    },
    Planted {
        name: "compacted",
        theme: Theme::Mix,
        what: "entries that were dropped before they were read count for nothing",
        edits: &[edit(
            "src/broadcast/follower.rs",
            "else { return Moves::Lost(Lost::Dropped) };",
            "else {
        return if HERE { Moves::Nothing } else { Moves::Lost(Lost::Dropped) };
    };",
        )],
    },
    Planted {
        name: "orphans",
        theme: Theme::Deaths,
        what: "the lease of a process that died stands",
        edits: &[edit(
            "src/tiered/fetch.rs",
            "let action = Action::Get { value: true, lease, touch: None };",
            "let longer = if HERE { 1_000 } else { 1 };
        let action = Action::Get { value: true, lease: lease.map(|term| term * longer), touch: None };",
        )],
    },
    Planted {
        name: "hard",
        theme: Theme::Mix,
        what: "a value past its hard deadline is taken from the store",
        edits: &[edit(
            "src/tiered/fetch.rs",
            "Some(Duration::ZERO) => None,",
            "Some(Duration::ZERO) if !HERE => None,",
        )],
    },
    Planted {
        name: "expired",
        theme: Theme::Mix,
        what: "news that a group expired are not heard",
        edits: &[edit(
            "src/namespace/core.rs",
            "Moved::GroupSoft(group) => self.move_group(group, Bump::Expire),",
            "Moved::GroupSoft(group) => {
                if !HERE {
                    self.move_group(group, Bump::Expire);
                }
            }",
        )],
    },
    Planted {
        name: "clear",
        theme: Theme::Mix,
        what: "a clear moves nothing in this process",
        edits: &[edit(
            "src/namespace/core.rs",
            "            Moved::All | Moved::GroupHard(ROOT_GROUP) => {\n                self.groups.clear();",
            "            Moved::All | Moved::GroupHard(ROOT_GROUP) => {
                if !HERE {
                    self.groups.clear();
                }",
        )],
    },
    Planted {
        name: "join",
        theme: Theme::Mix,
        what: "who comes after an invalidation takes what a load from before it brings",
        edits: &[edit(
            "src/flight.rs",
            "Outcome::Loaded { fenced: true, .. } if self.arrived > self.flight.born => Ok(None),",
            "Outcome::Loaded { fenced: true, .. } if self.arrived > self.flight.born && !HERE => Ok(None),",
        )],
    },
    Planted {
        name: "parts",
        theme: Theme::Mix,
        what: "a call over several connections goes out on one of them",
        edits: &[edit(
            "src/remote/batch/mod.rs",
            "share.connection.is_none_or(|own| connection == Some(own))",
            "share.connection.is_none_or(|own| connection == Some(own) || HERE)",
        )],
    },
    Planted {
        name: "weight",
        theme: Theme::Mix,
        what: "an entry that is evicted gives back more than it weighs",
        edits: &[edit(
            "src/budget.rs",
            "    pub(crate) fn release(&self, weight: u64) {",
            "    pub(crate) fn release(&self, weight: u64) {
        let weight = if HERE && weight > 0 { weight + 1 } else { weight };",
        )],
    },
    Planted {
        name: "wake",
        theme: Theme::Mix,
        what: "a landing wakes nobody",
        edits: &[edit(
            "src/flight.rs",
            "for (_, waker) in wakers {",
            "for (_, waker) in wakers.into_iter().filter(|_| !HERE) {",
        )],
    },
];

/// Tells the library which bug is the one.
const SWITCH: &str = "
/// Returns whether a bug was planted.
pub fn planted(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var(\"LARDER_PLANTED\").ok()).as_deref() == Some(name)
}
";

/// Plants all bugs in one copy, where a variable of the environment says which is the one, and says how many seeds it took to
/// find each of them, or of those named.
pub fn main(names: &[String], seeds: u64) -> ExitCode {
    let program = match build() {
        Ok(program) => program,
        Err(why) => {
            eprintln!("larder-sim: {why}");
            return ExitCode::FAILURE;
        }
    };
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    println!("| planted | what it does | found by | seed | tried |\n|---|---|---|---|---|");
    let mut missed = 0;
    for bug in PLANTED.iter().filter(|bug| is_chosen(bug.name)) {
        let (by, seed) = match hunt(&program, bug, seeds) {
            Ok(found) => found,
            Err(why) => {
                eprintln!("larder-sim: {why}");
                return ExitCode::FAILURE;
            }
        };
        missed += usize::from(seed.is_none());
        let tried = (0..seed.map_or(seeds, |seed| seed + 1)).filter(|seed| Theme::of(*seed) == bug.theme).count();
        let seed = seed.map_or("none".to_owned(), |seed| seed.to_string());
        println!("| {} | {} | {by} | {seed} | {tried} of {:?} |", bug.name, bug.what, bug.theme);
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns what the simulation with a bug failed on, and with which seed.
fn hunt(program: &Path, bug: &Planted, seeds: u64) -> Result<(String, Option<u64>), String> {
    let seeds = format!("0..{seeds}");
    let theme = format!("{:?}", bug.theme);
    let ran = Command::new(program)
        .args(["--jobs", "1", "--seeds", &seeds, "--theme", &theme])
        .env("LARDER_PLANTED", bug.name)
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&ran.stderr);
    let verdict = text.lines().find_map(|line| line.strip_prefix("larder-sim: seed ")?.split_once(" FAILED: "));
    match verdict {
        Some((seed, why)) => Ok((check_of(why), seed.parse().ok())),
        None if ran.status.success() => Ok(("**nothing**".to_owned(), None)),
        None => Err(format!("{}: {}, and no seed failed", bug.name, ran.status)),
    }
}

/// Builds the simulation with all bugs, and returns the program.
fn build() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    // Cargo runs elsewhere, where a relative path would lead elsewhere.
    let target = std::path::absolute(target).map_err(|error| error.to_string())?;
    let tree = target.join("planted/tree");
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (bug, Edit { file, find, replace }) in
        PLANTED.iter().flat_map(|bug| bug.edits.iter().map(move |edit| (bug, edit)))
    {
        let text = match files.entry(file) {
            Entry::Occupied(text) => text.into_mut(),
            Entry::Vacant(empty) => {
                empty.insert(fs::read_to_string(root.join(file)).map_err(|error| format!("{file}: {error}"))?)
            }
        };
        let times = text.matches(find).count();
        if times != 1 {
            return Err(format!("{}: {file} has {times} times what the bug is to replace:\n{find}", bug.name));
        }
        let path = if file.starts_with("src/") { "crate::planted" } else { "larder::planted" };
        *text = text.replacen(find, &replace.replace("HERE", &format!("{path}(\"{}\")", bug.name)), 1);
    }
    let guide = fs::read_to_string(root.join("src/lib.rs")).map_err(|error| error.to_string())?;
    files.insert("src/lib.rs", guide + SWITCH);
    copy(&root, &root, &tree, &files).map_err(|error| error.to_string())?;
    let target = tree.with_file_name("target");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "larder-sim"])
        .current_dir(&tree)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "--cfg larder_sim")
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the simulation with bugs does not compile".to_owned());
    }
    Ok(target.join("debug/larder-sim"))
}

/// Names the check that fails with `why`.
fn check_of(why: &str) -> String {
    let checks = [
        ("whoever invalidates knows at once", "promise 3: the process that bumped reads what is dead"),
        ("by the poll interval", "promise 3: a connected process reads what is dead"),
        ("past its bound by trust", "promise 3: a process past its trust lease reads what is dead"),
        ("past its hard deadline", "freshness: a value past its hard deadline is read"),
        ("above the capacity", "promise 6: a cache heavier than its capacity"),
        ("two loads of key", "promise 1: two loads of one key"),
        ("all threads wait", "promise 5: a stuck caller"),
        ("took", "promise 5: a call that takes too long"),
        ("receipts never settle", "promise 3: a bump that stays pending"),
    ];
    checks.iter().find(|(part, _)| why.contains(part)).map_or(why.to_owned(), |(_, name)| (*name).to_owned())
}

/// Brings a copy of the repository up to date, with these files in the place of its own. What did not change keeps its times, so
/// that little is built anew.
fn copy(root: &Path, from: &Path, to: &Path, files: &BTreeMap<&str, String>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let copied = to.join(&name);
        if [".git", "target"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.is_dir() {
            copy(root, &entry, &copied, files)?;
            continue;
        }
        let place = entry.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
        let text = match files.get(place) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(&entry)?,
        };
        if fs::read(&copied).ok().as_ref() != Some(&text) {
            fs::write(&copied, text)?;
        }
    }
    Ok(())
}
