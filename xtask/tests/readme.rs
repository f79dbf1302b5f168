//! Builds the code in the README and the guides as a reader would: in a package of its own, with the
//! dependencies that the README names.

use std::fs;
use std::path::{Path, PathBuf};

use tunnel_process::{cargo, expect_success, root};

/// The documents. The README comes first: it has the dependencies.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "SECURITY.md",
    "docs/OPERATING.md",
    "docs/FROM_GO_AND_PYTHON.md",
];

/// The part of the package that `cargo new` writes, and that it is not in this workspace.
const PACKAGE: &str = "[package]\nname = \"hello-tunnel\"\nedition = \"2024\"\n[workspace]\n";

/// Where the README assumes this repository.
const REPOSITORY: &str = "../grpc-tunnel";

/// A block of code in a document.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    code: String,
}

impl Block {
    /// The file that the comment in the first line names.
    fn file(&self) -> Option<&str> {
        let first = self.code.lines().next()?;
        let comment = first.strip_prefix("// ").or(first.strip_prefix("# "))?;
        let name = comment.split(',').next()?;
        (name.contains('.') && !name.contains(' ')).then_some(name)
    }
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block {
            language: language.to_owned(),
            code: code.join("\n"),
        });
    }
    blocks
}

fn write(path: &Path, text: &str) {
    let directory = path.parent().expect("a file is in a directory");
    fs::create_dir_all(directory).expect("the directory can be made");
    fs::write(path, text).expect("the file can be written");
}

/// Writes a block that belongs to the package, and returns its file. Rust without a file name is an
/// integration test: one needs no `main`.
fn write_block(package: &Path, name: &str, block: &Block) -> Option<PathBuf> {
    let file = match (block.language.as_str(), block.file()) {
        ("toml" | "proto" | "rust", Some(file)) => PathBuf::from(file),
        ("rust", None) => Path::new("tests").join(name).with_extension("rs"),
        _ => return None,
    };
    let code = match file.to_str() {
        Some("Cargo.toml") => {
            let root = root().display().to_string();
            format!("{PACKAGE}{}", block.code.replace(REPOSITORY, &root))
        }
        _ => block.code.clone(),
    };
    write(&package.join(&file), &code);
    Some(file)
}

#[test]
fn the_code_in_the_readme_and_the_guides_compiles_with_the_dependencies_of_the_readme() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let package = directory.join("hello-tunnel");
    // The files of an earlier run.
    let _ = fs::remove_dir_all(&package);
    let mut files = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).expect("the document can be read");
        for (number, block) in blocks(&text).iter().enumerate() {
            let name = format!("{}_{number}", document.replace(['/', '.'], "_"));
            files.extend(write_block(&package, &name, block));
        }
    }
    for file in ["Cargo.toml", "build.rs", "src/lib.rs", "src/bin/server.rs"] {
        assert!(files.contains(&PathBuf::from(file)), "{file} in {files:?}");
    }
    let lock = root().join("Cargo.lock");
    fs::copy(lock, package.join("Cargo.lock")).expect("the versions can be copied");
    // Downloads only what no build of the workspace has needed: the code generator.
    expect_success(cargo().args(["fetch", "--locked"])).expect("the dependencies are there");
    let mut check = cargo();
    check.current_dir(&package);
    check.args(["check", "--offline", "--all-targets", "--target-dir"]);
    check.arg(directory.join("hello-tunnel-target"));
    expect_success(&mut check).expect("the code compiles");
}

#[test]
fn blocks_are_found_with_their_languages_and_files() {
    let document = "a\n```rust\n// src/lib.rs\nfn f() {}\n```\n```sh\n# runs b.rs\n```\n```toml\n# Cargo.toml, below\n```\n";
    let found = blocks(document);
    let files: Vec<_> = found
        .iter()
        .map(|block| (block.language.as_str(), block.file()))
        .collect();
    let expected = [
        ("rust", Some("src/lib.rs")),
        ("sh", None),
        ("toml", Some("Cargo.toml")),
    ];
    assert_eq!(files, expected);
}
