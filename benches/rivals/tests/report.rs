//! Makes pages of measurements that never change, and judges them as a browser and its user would.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
};

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/report-fixture");
const SECTIONS: [&str; 7] = ["headline", "throughput", "latency", "hit-ratio", "memory", "remote", "measurement"];

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    /// With a copy of the measurements in `data`.
    fn new(name: &str) -> Self {
        let scratch = Self(env::temp_dir().join(format!("report-{}-{name}", process::id())));
        fs::create_dir_all(scratch.data()).unwrap();
        for file in fs::read_dir(FIXTURE).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), scratch.data().join(file.file_name())).unwrap();
        }
        scratch
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Changes one file of the measurements.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.data().join(file);
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    }

    /// The page of what is in `data` now, and what was printed.
    fn page(&self) -> (String, String) {
        let output = report(&[Path::new("--from"), &self.data(), Path::new("--out"), &self.0]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let page = fs::read_to_string(self.0.join("report.html")).unwrap();
        (page, String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_report")).args(arguments).output().expect("the program starts")
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("the page is not well-formed: {error}"))
}

fn by_id<'d>(document: &'d Document<'_>, id: &str) -> Node<'d, 'd> {
    let found = document.descendants().find(|node| node.attribute("id") == Some(id));
    found.unwrap_or_else(|| panic!("there is no {id}"))
}

fn all<'n>(node: Node<'n, 'n>, name: &'static str) -> impl Iterator<Item = Node<'n, 'n>> {
    node.descendants().filter(move |node| node.has_tag_name(name))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

#[test]
fn every_section_has_its_plots_and_their_numbers() {
    let scratch = Scratch::new("whole");
    let (page, _) = scratch.page();
    let document = parse(&page);
    let plots = |id| all(by_id(&document, id), "svg").count();
    assert_eq!(SECTIONS.map(plots), [0, 5, 3, 3, 1, 1, 0]);
    assert!(!page.contains("Not measured"), "all of it has been measured");
    for panel in document.descendants().filter(|node| node.attribute("class") == Some("panel")) {
        let question = text(all(panel, "h3").next().unwrap());
        assert!(question.ends_with('?'), "{question}");
        assert!(text(panel).contains("er is better."), "{question} does not say what is better");
        assert_eq!(all(panel, "table").count(), 1, "{question}");
        let command = text(all(panel, "code").next().unwrap());
        assert!(command.starts_with("cargo "), "{question} is answered by {command}");
        assert!(text(panel).contains("on Example CPU, 2 cores"), "{question} does not name the machine");
    }
}

#[test]
fn plots_speak_to_those_who_do_not_see_them() {
    let scratch = Scratch::new("described");
    let (page, _) = scratch.page();
    let document = parse(&page);
    let mut ids = BTreeSet::new();
    for id in document.descendants().filter_map(|node| node.attribute("id")) {
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
    }
    for svg in all(document.root(), "svg") {
        assert_eq!(svg.attribute("role"), Some("img"));
        for id in svg.attribute("aria-labelledby").unwrap().split(' ') {
            assert!(!text(by_id(&document, id)).is_empty(), "{id} says nothing");
        }
    }
    for link in all(document.root(), "a") {
        let target = link.attribute("href").unwrap().strip_prefix('#').expect("links stay on the page");
        assert!(ids.contains(target), "nothing is called {target}");
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let scratch = Scratch::new("alone");
    let (page, _) = scratch.page();
    for sign in ["http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "src="] {
        assert!(!page.contains(sign), "{sign}");
    }
}

#[test]
fn every_point_is_on_its_drawing() {
    let scratch = Scratch::new("drawn");
    let (page, _) = scratch.page();
    let document = parse(&page);
    for svg in all(document.root(), "svg") {
        let size: Vec<f64> = svg.attribute("viewBox").unwrap().split(' ').map(|part| part.parse().unwrap()).collect();
        for label in all(svg, "text") {
            let place = |name| label.attribute(name).unwrap().parse::<f64>().unwrap();
            assert!((0.0..=size[2]).contains(&place("x")) && (0.0..=size[3]).contains(&place("y")), "{}", text(label));
        }
        for path in all(svg, "path").filter_map(|path| path.attribute("d")) {
            assert!(!path.contains("NaN") && !path.contains("inf"), "{path}");
        }
    }
}

#[test]
fn what_is_missing_is_shown_as_missing() {
    let scratch = Scratch::new("missing");
    for file in ["hit.json", "memory.json"] {
        fs::remove_file(scratch.data().join(file)).unwrap();
    }
    fs::write(scratch.data().join("latency.json"), "{").unwrap();
    fs::remove_file(scratch.data().join("remote_callers.json")).unwrap();
    scratch.edit("conditions.json", |conditions| {
        let steps = conditions["steps"].as_array_mut().unwrap();
        steps.last_mut().unwrap()["failure"] = "the server <fell> over".into();
    });
    let (page, printed) = scratch.page();
    let document = parse(&page);
    let missing = |id| {
        let section = by_id(&document, id);
        section
            .descendants()
            .filter(|node| node.attribute("class") == Some("panel missing"))
            .map(text)
            .collect::<Vec<_>>()
    };
    assert_eq!(SECTIONS.map(|id| missing(id).len()), [0, 2, 3, 0, 1, 1, 0]);
    assert!(missing("throughput")[0].contains("it has not been measured"));
    assert!(missing("throughput")[0].contains("-- hit --threads 1,2,4,8"), "how to measure it is told");
    assert!(missing("latency")[0].contains("EOF"), "what is wrong with the file is told");
    assert!(missing("remote")[0].contains("the server <fell> over"), "why it failed is told");
    assert!(text(by_id(&document, "headline")).contains("not measured"));
    assert!(printed.contains("not measured"), "{printed}");
}

#[test]
fn nothing_at_all_makes_a_page_that_says_so() {
    let scratch = Scratch::new("nothing");
    fs::remove_dir_all(scratch.data()).unwrap();
    fs::create_dir(scratch.data()).unwrap();
    let (page, _) = scratch.page();
    let document = parse(&page);
    assert_eq!(all(document.root(), "svg").count(), 0);
    assert_eq!(page.matches("<h3>Not measured</h3>").count(), 5 + 3 + 1 + 1 + 1);

    fs::remove_dir_all(scratch.data()).unwrap();
    let output = report(&[Path::new("--from"), &scratch.data()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(scratch.data().to_str().unwrap()));
}

#[test]
fn names_of_strangers_are_escaped() {
    let scratch = Scratch::new("hostile");
    let hostile = "a&b <i>\"c\"</i>";
    scratch.edit("hitratio.json", |run| run["results"][0]["trace"] = hostile.into());
    scratch.edit("hit.json", |run| run["results"][0]["contestants"][1]["name"] = "<moka>".into());
    let (page, _) = scratch.page();
    assert!(!page.contains("<i>") && !page.contains("<moka>"));
    let document = parse(&page);
    assert!(text(by_id(&document, "hit-ratio")).contains(hostile));
    assert!(text(by_id(&document, "throughput")).contains("<moka>"));
}

#[test]
fn the_numbers_are_those_that_were_measured() {
    let scratch = Scratch::new("numbers");
    let timing = |run: &mut Value, name: &str, ns: f64| {
        let result = &mut run["results"][0];
        assert_eq!((&result["keys"], &result["threads"]), (&1_000.into(), &1.into()));
        let contestants = result["contestants"].as_array_mut().unwrap();
        let contestant = contestants.iter_mut().find(|contestant| contestant["name"] == name).unwrap();
        contestant["ns_per_operation"]["median"] = ns.into();
        contestant["ratio_to_first"]["median"] = (ns / 16.0).into();
    };
    scratch.edit("hit.json", |run| {
        timing(run, "quick_cache", 16.0);
        timing(run, "larder", 12_345.6);
    });
    let (page, printed) = scratch.page();
    let row = printed.lines().find(|line| line.contains("`get`, 1 thread, 1,000 keys")).unwrap();
    assert!(row.contains("| 12,346 ns | 16.0 ns |") && row.contains("771.60 × quick_cache"), "{row}");
    assert!(printed.contains("`benches/report` on Example CPU, 2 cores, Linux 6.1.0, rustc 1.95.0"), "{printed}");
    let document = parse(&page);
    let verdict = |row: &str| {
        let rows = all(by_id(&document, "headline"), "tr").map(text).collect::<Vec<_>>();
        rows.into_iter().find(|text| text.contains(row)).unwrap()
    };
    assert!(verdict("hit, get, 1 thread, 1,000 keys").contains("✗ no"));
    assert!(text(by_id(&document, "throughput")).contains("12,346"));
}

#[test]
fn figures_without_optimisation_come_with_a_warning() {
    let scratch = Scratch::new("debug");
    scratch.edit("memory.json", |run| run["optimised"] = false.into());
    let (page, _) = scratch.page();
    let document = parse(&page);
    assert!(text(by_id(&document, "memory")).contains("these figures mean nothing"));
    assert!(!text(by_id(&document, "throughput")).contains("these figures mean nothing"));
}

#[test]
fn a_point_with_more_room_is_hollow() {
    let scratch = Scratch::new("hollow");
    let hollow = |scratch: &Scratch| scratch.page().0.matches("marker hollow").count();
    let set = |kept: bool| {
        scratch.edit("hitratio.json", |run| {
            for result in run["results"].as_array_mut().unwrap() {
                let cells = result["cells"].as_array_mut().into_iter().flatten();
                for contestant in cells.flat_map(|cell| cell["contestants"].as_array_mut().unwrap()) {
                    contestant["kept_within_capacity"] = (kept || contestant["name"] != "moka").into();
                }
            }
        });
    };
    set(true);
    assert_eq!(hollow(&scratch), 0);
    set(false);
    assert!(hollow(&scratch) > 0);
    assert!(scratch.page().1.contains("(overfull)"));
}

#[test]
fn mistakes_are_explained() {
    for (arguments, problem) in [(&["--fast"][..], "--fast"), (&["--from", "x", "--quick"], "--quick")] {
        let output = Command::new(env!("CARGO_BIN_EXE_report")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}

#[test]
fn what_is_not_known_of_the_remote_tier_is_left_open() {
    let scratch = Scratch::new("remote");
    let (page, printed) = scratch.page();
    assert!(printed.contains("| 243,012/s | – | – | – | 2.83 × MetaClient |"), "{printed}");
    let document = parse(&page);
    let rows: Vec<Vec<String>> = all(by_id(&document, "remote"), "tr")
        .map(|row| row.children().filter(Node::is_element).map(text).collect())
        .collect();
    assert_eq!(rows[3], ["larder", "64", "243,012", "2.83", "231", "1,141", "4.8", "1.5"]);
    assert_eq!(rows[4], ["MetaClient", "64", "86,011", "1.00", "690", "2,131", "13.5", "–"]);
}
