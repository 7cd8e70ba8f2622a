//! Notes the commit that is built: asked for when the program runs, it would be another one's.

use std::process::Command;

fn main() {
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=NEPHRITE_COMMIT={commit}");
    // Whatever changes the code changes the answer.
    for path in ["src", "../crates", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for path in ["HEAD", "index", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The commit of the checkout, marked when tracked files have changes.
fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{commit} with changes") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
