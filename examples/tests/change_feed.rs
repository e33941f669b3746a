//! Runs the example `change_feed` beside a PostgreSQL of its own, which other programs change, and which fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tempfile::TempDir;

const MISSING: &str = "PostgreSQL 14 or later is missing: install it, e.g. `apt-get install postgresql`";

/// How long a test waits for what must come; on any machine, longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL that listens on a socket in a folder of its own; stopped when dropped.
struct Server {
    folder: TempDir,
    programs: PathBuf,
    /// As whom it runs: root must not.
    user: Option<(u32, u32)>,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::Builder::new().prefix("larder-pg-").tempdir().expect("a temporary folder");
        let is_root = fs::metadata("/proc/self").expect("this process").uid() == 0;
        let user = is_root.then(|| (id("-u"), id("-g")));
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("a folder for the user postgres");
        }
        let server = Server { folder, programs: programs(), user };
        server.run("initdb", &["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        server.launch();
        server
    }

    fn launch(&self) {
        let folder = self.folder.path().display();
        let options = format!("-k {folder} -c listen_addresses='' -c fsync=off");
        self.run("pg_ctl", &["start", "--wait", "--options", &options, "--log", &format!("{folder}/log")]);
    }

    /// Stops it as an operator would; those who are connected lose their connection.
    fn stop(&self) {
        self.run("pg_ctl", &["stop", "--wait", "--mode=fast"]);
    }

    fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.path().display())
    }

    /// Connects as a program that knows nothing of the cache.
    fn client(&self) -> Client {
        Client::connect(&self.url(), NoTls).expect("the server answers")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, arguments).output().unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).join("");
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        // By the file in its data that says its pid, `pg_ctl` stops this server and no other.
        command.args(arguments).arg("--pgdata").arg(self.folder.path().join("data")).current_dir(self.folder.path());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.command("pg_ctl", &["stop", "--wait", "--mode=immediate"]).output();
    }
}

/// Returns where the programs of the newest PostgreSQL are: Debian keeps them off the `PATH`.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = debian.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists());
    let newest = versions.max_by_key(|path| version(path)).map(|path| path.join("bin"));
    let on_path = || {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).find(|folder| folder.join("initdb").exists())
    };
    newest.or_else(on_path).expect(MISSING)
}

/// Returns a number of the user `postgres`, which the package makes.
fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect(MISSING)
}

/// The example, as a process; killed when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Example {
    fn start(arguments: &[&str]) -> Example {
        let test = std::env::current_exe().expect("a test has a path");
        let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples/change_feed");
        let mut command = Command::new(built);
        let spawned = command.args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("the example is built: run `cargo test` without --test");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Example { child, lines, seen: Vec::new() }
    }

    /// Waits until it has printed lines that begin so, in whatever order, after those that were waited for before.
    #[track_caller]
    fn prints(&mut self, beginnings: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = beginnings.to_vec();
        while !missing.is_empty() {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                panic!("no line begins with {missing:?} after:\n{}", self.seen.join("\n"));
            };
            missing.retain(|begins| !line.starts_with(begins));
            self.seen.push(line);
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_table_is_followed_whoever_changes_it_and_whatever_fails() {
    let server = Server::start();
    let mut example = Example::start(&[&server.url()]);
    example.prints(&["feed: Following, connections 1, gaps 1", "record 1: none", "record 2: none", "record 3: none"]);
    let mut writer = server.client();

    // Plain SQL. The cache has "none" by then, and keeps everything for ever.
    writer.batch_execute("INSERT INTO larder_records VALUES (1, 'Ann'), (2, 'Cem')").unwrap();
    example.prints(&["record 1: Ann", "record 2: Cem"]);
    writer.batch_execute("UPDATE larder_records SET name = 'Bob' WHERE id = 1").unwrap();
    example.prints(&["record 1: Bob"]);
    writer.batch_execute("UPDATE larder_records SET id = 3 WHERE id = 1").unwrap();
    example.prints(&["record 1: none", "record 3: Bob"]);
    writer.batch_execute("BEGIN; DELETE FROM larder_records WHERE id = 3; ROLLBACK; TRUNCATE larder_records").unwrap();
    example.prints(&["record 2: none", "record 3: none"]);
    writer.batch_execute("INSERT INTO larder_records VALUES (1, 'Ann')").unwrap();
    example.prints(&["record 1: Ann"]);

    // A change that nobody is told of, as when nobody listens, and then a connection that breaks: who listens anew takes
    // everything for changed.
    writer.batch_execute("SET session_replication_role = replica").unwrap();
    writer.batch_execute("UPDATE larder_records SET name = 'Dan' WHERE id = 1").unwrap();
    let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    assert_eq!(writer.query(listeners, &[]).unwrap().len(), 1);
    example.prints(&["feed: Following, connections 2, gaps 2", "record 1: Dan"]);

    // The same, for a server that is down for a while.
    writer.batch_execute("UPDATE larder_records SET name = 'Eve' WHERE id = 1").unwrap();
    server.stop();
    example.prints(&["feed: Pausing"]);
    server.launch();
    example.prints(&["feed: Following, connections 3, gaps 3", "record 1: Eve"]);
    server.client().batch_execute("UPDATE larder_records SET name = 'Fay' WHERE id = 1").unwrap();
    example.prints(&["record 1: Fay"]);
}

#[test]
fn without_a_connection_string_it_says_how_to_run_it() {
    let mut example = Example::start(&[]);
    example.prints(&["Give the connection string", "    cargo run --release --example change_feed -- 'host="]);
    assert!(example.child.wait().unwrap().success());
}
