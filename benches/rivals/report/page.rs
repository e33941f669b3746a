//! The page as a whole.

use crate::{
    headline::Headline,
    markup::{Element, element},
    results::{Conditions, Results, Run},
    sections::{hit_ratio, latency, memory, remote, scrollable, shown, throughput},
    steps::Step,
};

const STYLE: &str = include_str!("style.css");

/// One file that needs no other, and nothing from the network.
pub(crate) fn html(results: &Results, headline: &Headline) -> String {
    let head = element("head")
        .child(element("meta").with("charset", "utf-8"))
        .child(element("meta").with("name", "viewport").with("content", "width=device-width, initial-scale=1"))
        .child(element("meta").with("name", "color-scheme").with("content", "light dark"))
        .child(element("title").text("larder beside other caches"))
        .child(element("style").text(STYLE));
    let main = element("main")
        .child(summary(headline))
        .child(throughput::html(results))
        .child(latency::html(results))
        .child(hit_ratio::html(results))
        .child(memory::html(results))
        .child(remote::html(results))
        .child(measurement(results));
    let body = element("body").child(header(results)).child(main);
    let page = element("html").with("lang", "en").child(head).child(body);
    format!("<!DOCTYPE html>\n{page}\n")
}

fn header(results: &Results) -> Element {
    let on = match &results.conditions {
        Some(conditions) => {
            let Conditions { cpu, cores, date, commit, effort, .. } = conditions;
            format!("{cpu}, {cores} cores · {date} · commit {commit} · {effort}")
        }
        None => "On what and when this was measured is not recorded.".to_owned(),
    };
    let links = [
        ("headline", "In short"),
        (throughput::ID, "Throughput"),
        (latency::ID, "Latency"),
        (hit_ratio::ID, "Hit ratio"),
        (memory::ID, "Memory"),
        (remote::ID, "Remote tier"),
        ("measurement", "How it was measured"),
    ];
    let links = links.map(|(id, name)| element("a").with("href", format!("#{id}")).text(name));
    element("header")
        .child(element("h1").text("larder beside other caches"))
        .child(element("p").text(on))
        .child(element("nav").with("aria-label", "Sections").children(links))
}

fn summary(headline: &Headline) -> Element {
    let reading = "Medians. “In units of a rival” is the median of larder's ratios to the rival within each round, in which \
        all take turns; it may differ from the quotient of the medians. Goals and aims are larder's own; the aim of the mean hit ratio is \
        the mean of the best rival of each cell.";
    element("section")
        .with("id", "headline")
        .child(element("h2").text("In short"))
        .child(element("p").with("class", "introduction").text(reading))
        .child(scrollable("numbers wide", "Numbers", headline.table()))
}

/// On what, of which versions, by which commands, and what failed.
fn measurement(results: &Results) -> Element {
    let section = element("section").with("id", "measurement").child(element("h2").text("How was it measured?"));
    let fairness = "Contestants take turns within every round, in an order drawn anew, and are rebuilt many times in a run: \
        what slows the machine down for a while, or how an instance happens to lie in memory, meets all of them. Keys are \
        drawn and values allocated before any clock starts. Every cache has its default hasher and settings. Times are wall \
        times of a round divided by the operations of all threads.";
    let section = section.child(element("p").with("class", "introduction").text(fairness));
    let Some(conditions) = &results.conditions else {
        return section.child(element("p").with("class", "warning").text("The conditions were not recorded."));
    };
    let memory = conditions.memory_gib.map_or("unknown".to_owned(), |gib| format!("{gib} GiB"));
    let mut facts = vec![
        ("processor", format!("{}, {} cores", conditions.cpu, conditions.cores)),
        ("memory", memory),
        ("kernel", conditions.kernel.clone()),
        ("compiler", conditions.rustc.clone()),
        ("memcached", conditions.memcached.clone()),
        ("commit", conditions.commit.clone()),
        ("date", conditions.date.clone()),
    ];
    if let Some(run) = Step::ALL.into_iter().find_map(|step| results.file::<Run>(step).ok()) {
        let contestants = run.contestants.iter().map(|(name, version)| format!("{name} {version}"));
        facts.push(("contestants", contestants.collect::<Vec<_>>().join(", ")));
        facts.push(("seed", run.seed.to_string()));
    }
    let facts = facts.into_iter().flat_map(|(name, value)| [element("dt").text(name), element("dd").text(value)]);
    section.child(element("dl").children(facts)).child(steps(conditions))
}

fn steps(conditions: &Conditions) -> Element {
    let head = ["command", "minutes", "result"].map(|heading| element("th").with("scope", "col").text(heading));
    let rows = conditions.steps.iter().map(|step| {
        let (result, class) = match &step.failure {
            None => (step.file.clone(), "reached"),
            Some(failure) => (format!("none: {failure}"), "missed"),
        };
        element("tr")
            .child(element("td").child(shown(&step.command)))
            .child(element("td").text(format!("{:.1}", step.seconds / 60.0)))
            .child(element("td").with("class", class).text(result))
    });
    let table = element("table")
        .with("class", "steps")
        .child(element("caption").text("All commands, at the root of the project"))
        .child(element("thead").child(element("tr").children(head)))
        .child(element("tbody").children(rows));
    scrollable("numbers wide", "Commands", table)
}
