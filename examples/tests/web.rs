//! Drives the example `web` as browsers would: two processes of it, on one memcached.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder::Memcached;
use tempfile::TempDir;
use ureq::Agent;

/// How long a test waits for what must come; on any machine, longer than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a port is looked for: between finding a free one and memcached taking it, another process may.
const PORT_ATTEMPTS: usize = 20;

/// The name of the site, as clients and the balancer in front of its processes have it: pages are kept by it.
const HOST: &str = "site.example";

/// A process that is killed, by its own pid, when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn memcached() -> (Process, SocketAddr) {
    for _ in 0..PORT_ATTEMPTS {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut command = Command::new("memcached");
        // As root it refuses to run unless it is told as whom; from others it takes no notice of `-u`.
        command.args(["-l", "127.0.0.1", "-U", "0", "-p", &address.port().to_string(), "-u", "root"]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process = Process(
            spawned.expect("memcached is on the PATH: install 1.6.18 or later, e.g. `apt-get install memcached`"),
        );
        let deadline = Instant::now() + PATIENCE;
        while process.0.try_wait().expect("its end can be asked for").is_none() && Instant::now() < deadline {
            if Memcached::connect(address).is_ok() {
                return (process, address);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("memcached did not start, {PORT_ATTEMPTS} times");
}

/// One process of the example.
struct Web {
    _process: Process,
    url: String,
    agent: Agent,
}

/// What a browser gets.
#[derive(Debug)]
struct Got {
    status: u16,
    body: String,
    etag: String,
    cache_status: String,
}

impl Web {
    fn start(memcached: SocketAddr, folder: &Path) -> Web {
        let mut command = Command::new(example());
        command.arg(memcached.to_string()).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().expect("the example is built: run `cargo test` without --test"));
        let mut line = String::new();
        let stdout = process.0.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints its address");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it printed {line:?}")).to_owned();
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent();
        Web { _process: process, url, agent }
    }

    fn get_if(&self, path: &str, held: Option<&str>) -> Got {
        let request = self.agent.get(format!("{}{path}", self.url)).header("host", HOST);
        let request = held.into_iter().fold(request, |request, held| request.header("if-none-match", held));
        let mut response = request.call().expect("an answer");
        let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (etag, cache_status) = (header("etag"), header("cache-status"));
        let body = response.body_mut().read_to_string().expect("text");
        Got { status: response.status().as_u16(), body, etag, cache_status }
    }

    fn get(&self, path: &str) -> Got {
        self.get_if(path, None)
    }

    fn save(&self, id: u32, name: &str) {
        let request = self.agent.put(format!("{}/record/{id}", self.url)).header("host", HOST);
        let response = request.send(name).expect("an answer");
        assert_eq!(response.status(), 204);
    }

    /// Waits until a page is what `is_so` says.
    fn eventually(&self, path: &str, is_so: impl Fn(&Got) -> bool) -> Got {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.get(path);
            if is_so(&got) {
                return got;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {path}, which is {got:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a page is in the cache: for a moment after a save, its news may still be on their way back to who
    /// saved.
    fn eventually_cached(&self, path: &str) -> Got {
        self.eventually(path, |got| got.cache_status.starts_with("pages; hit"))
    }
}

/// Returns the example that cargo has built beside this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples");
    built.join("web").with_extension(std::env::consts::EXE_EXTENSION)
}

/// Two processes on one memcached and one folder of records.
fn site() -> (Web, Web, (Process, TempDir)) {
    let (server, address) = memcached();
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = [0, 1].map(|_| Web::start(address, folder.path()));
    (one, other, (server, folder))
}

#[test]
fn what_a_browser_holds_is_a_304_and_no_page_is_rendered() {
    let (one, other, _kept) = site();
    one.save(7, "Ann");
    assert_eq!(one.get("/record/7").status, 200);
    let first = one.eventually_cached("/record/7");
    assert!(first.body.contains("record 7: Ann\nrender "), "{}", first.body);
    for web in [&one, &other, &one] {
        let held = web.get_if("/record/7", Some(&first.etag));
        assert_eq!((held.status, held.body.as_str(), held.etag.as_str()), (304, "", first.etag.as_str()));
        assert!(held.cache_status.starts_with("pages; hit"), "{held:?}");
        // The page says which render it is, and there was no other.
        assert_eq!(web.get("/record/7").body, first.body);
    }
    assert_eq!(one.get_if("/record/7", Some("\"other\"")).status, 200);
    assert_eq!(one.get("/record/8").status, 404);
}

#[test]
fn a_save_drops_all_pages_of_the_record_in_both_processes() {
    let (one, other, _kept) = site();
    one.save(7, "Ann");
    one.save(8, "Bob");
    let before: Vec<Got> = ["/record/7", "/record/8", "/"].map(|path| other.eventually_cached(path)).into();
    for (path, got) in ["/record/7", "/record/8", "/"].iter().zip(&before) {
        assert_eq!(one.get(path).body, got.body, "one render is enough for both");
    }
    for round in 0..20 {
        let name = format!("Ann the {round}.");
        one.save(7, &name);
        // The process that saved it shows it at once, on every page; the other within the namespace's bound, and then
        // for good.
        for path in ["/record/7", "/"] {
            assert!(one.get(path).body.contains(&name), "{path} in round {round}");
        }
        for path in ["/record/7", "/"] {
            other.eventually(path, |got| got.body.contains(&name));
            assert!(other.get(path).body.contains(&name), "{path} in round {round}");
        }
        assert_eq!(one.get_if("/record/7", Some(&before[0].etag)).status, 200);
    }
    // What was made from another record alone is untouched.
    assert_eq!(one.get("/record/8").body, before[1].body);
    assert_eq!(other.get_if("/record/8", Some(&before[1].etag)).status, 304);
}

#[test]
fn the_page_of_metrics_shows_what_the_cache_does() {
    let (one, _other, _kept) = site();
    one.save(7, "Ann");
    one.get("/record/7");
    one.get("/record/7");
    let page = one.get("/metrics");
    assert_eq!(page.status, 200);
    for figure in ["larder_loads_total", "larder_reads_total", "larder_weight"] {
        assert!(
            page.body.lines().any(|line| line.starts_with(figure) && line.contains("cache=\"pages\"")),
            "{}",
            page.body
        );
    }
    assert_ne!(one.get("/metrics").body, "", "it is never stored");
}

#[test]
fn bad_input_is_named_with_what_to_do() {
    let output = Command::new(example()).output().expect("the example is built: run `cargo test` without --test");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("usage: web MEMCACHED FOLDER")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(example()).args(["127.0.0.1:1"]).arg(folder.path()).output().expect("it runs");
    assert!(!output.status.success());
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}
