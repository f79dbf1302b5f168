//! `cargo xtask lint`: checks that no two files of a crate import each other, directly or through
//! others.
//!
//! The imports form a graph. An edge goes from a file to the file that defines the imported item;
//! re-exports are followed and are not edges. A file with an `impl` block for a type of a parent
//! module may import that type.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::{Item, UseTree, Visibility};
use tunnel_process::root;

/// The directories that are searched for crates, relative to the root.
const PLACES: [&str; 3] = ["crates", "examples", "xtask"];

/// The path of a module: its segments below the crate root.
type Module = Vec<String>;

/// Checks every crate of the workspace and prints each cycle.
pub(crate) fn run() -> Result<()> {
    let mut circles = Vec::new();
    let mut crates = 0;
    for place in PLACES {
        let place = root().join(place);
        let below = fs::read_dir(&place)?.map(|entry| Ok(entry?.path()));
        let dirs = [Ok(place.clone())].into_iter().chain(below);
        for dir in dirs.collect::<std::io::Result<BTreeSet<_>>>()? {
            for file in ["lib.rs", "main.rs"] {
                let file = dir.join("src").join(file);
                if file.is_file() {
                    crates += 1;
                    circles.extend(Crate::read(&file)?.circles());
                }
            }
        }
    }
    if circles.is_empty() {
        println!("{crates} crates import in one direction");
        return Ok(());
    }
    for circle in &circles {
        println!("{circle}");
    }
    bail!("{} import cycles", circles.len());
}

/// The files of a crate.
struct Crate {
    name: String,
    files: BTreeMap<Module, File>,
}

/// What one file defines and imports.
#[derive(Default)]
struct File {
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// The types that the file has `impl` blocks for.
    extends: BTreeSet<String>,
}

struct Import {
    path: Vec<String>,
    /// The name under which the file imports the item.
    name: String,
    is_public: bool,
}

impl Crate {
    fn read(top: &Path) -> Result<Self> {
        let dir = top.parent().context("a file has a directory")?;
        let mut files = BTreeMap::new();
        read_module(top, dir, Vec::new(), &mut files)?;
        let name = dir
            .strip_prefix(root())
            .unwrap_or(dir)
            .display()
            .to_string();
        Ok(Self { name, files })
    }

    fn circles(&self) -> Vec<String> {
        let mut graph = DiGraphMap::<&Module, ()>::new();
        for (from, file) in &self.files {
            for import in file.imports.iter().filter(|import| !import.is_public) {
                let Some((to, item)) = self.resolve(from, &import.path, 0) else {
                    continue;
                };
                let extends =
                    from.starts_with(to) && item.is_some_and(|i| file.extends.contains(&i));
                if from != to && !extends {
                    graph.add_edge(from, to, ());
                }
            }
        }
        let groups = tarjan_scc(&graph)
            .into_iter()
            .filter(|group| group.len() > 1);
        groups.map(|group| self.describe(&graph, &group)).collect()
    }

    fn describe(&self, graph: &DiGraphMap<&Module, ()>, group: &[&Module]) -> String {
        let name = |module: &Module| match module.is_empty() {
            true => "the root".to_owned(),
            false => module.join("::"),
        };
        let inside = group.iter().flat_map(|from| graph.edges(*from));
        let inside = inside.filter(|(_, to, ())| group.contains(to));
        let edges: Vec<_> = inside
            .map(|(from, to, ())| format!("{} -> {}", name(from), name(to)))
            .collect();
        format!("{}: {}", self.name, edges.join(", "))
    }

    /// The file that defines the item of a path, and the item's name unless the path names the file
    /// itself. `None` for items of other crates.
    fn resolve(
        &self,
        from: &Module,
        path: &[String],
        depth: u8,
    ) -> Option<(&Module, Option<String>)> {
        let mut rest = path.iter();
        let first = rest.next()?;
        let mut at = match first.as_str() {
            "crate" => Module::new(),
            "self" => from.clone(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            other => {
                let child = below(from, other);
                self.files.contains_key(&child).then_some(child)?
            }
        };
        for segment in rest {
            if segment == "super" {
                at.pop()?;
                continue;
            }
            let child = below(&at, segment);
            if self.files.contains_key(&child) {
                at = child;
                continue;
            }
            let (key, file) = self.files.get_key_value(&at)?;
            // Follow the re-export. The depth limit stops re-exports that refer to themselves.
            let reexport = file.imports.iter().find(|import| import.name == *segment);
            if !file.items.contains(segment)
                && depth < 8
                && let Some(import) = reexport
            {
                return self.resolve(key, &import.path, depth + 1);
            }
            return Some((key, Some(segment.clone())));
        }
        let (key, _) = self.files.get_key_value(&at)?;
        Some((key, None))
    }
}

fn below(module: &Module, name: &str) -> Module {
    let mut child = module.clone();
    child.push(name.to_owned());
    child
}

/// Reads a module and its child modules.
fn read_module(
    path: &Path,
    dir: &Path,
    module: Module,
    files: &mut BTreeMap<Module, File>,
) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parsed =
        syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let mut file = File::default();
    let mut children = Vec::new();
    for item in parsed.items {
        match item {
            Item::Use(item) => {
                let is_public = !matches!(item.vis, Visibility::Inherited);
                flatten(&item.tree, Vec::new(), is_public, &mut file.imports);
            }
            Item::Mod(item) if item.content.is_none() => children.push(item.ident.to_string()),
            // An inline module, for example with generated code.
            Item::Mod(item) => {
                files.insert(below(&module, &item.ident.to_string()), File::default());
            }
            Item::Impl(item) => {
                if let syn::Type::Path(path) = &*item.self_ty
                    && let Some(last) = path.path.segments.last()
                {
                    file.extends.insert(last.ident.to_string());
                }
            }
            other => file.items.extend(name_of(&other)),
        }
    }
    for child in children {
        let child_dir = dir.join(&child);
        let places: [PathBuf; 2] = [dir.join(format!("{child}.rs")), child_dir.join("mod.rs")];
        // Generated modules may be in another directory. They import nothing from the crate.
        if let Some(place) = places.iter().find(|place| place.is_file()) {
            read_module(place, &child_dir, below(&module, &child), files)?;
        }
    }
    files.insert(module, file);
    Ok(())
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Splits a `use` tree into single imports.
fn flatten(tree: &UseTree, mut path: Vec<String>, is_public: bool, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, is_public, imports);
        }
        UseTree::Group(tree) => {
            for tree in &tree.items {
                flatten(tree, path.clone(), is_public, imports);
            }
        }
        UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            if name != "self" {
                path.push(name);
            }
            let name = path.last().cloned().unwrap_or_default();
            imports.push(Import {
                path,
                name,
                is_public,
            });
        }
        UseTree::Rename(tree) => {
            path.push(tree.ident.to_string());
            let name = tree.rename.to_string();
            imports.push(Import {
                path,
                name,
                is_public,
            });
        }
        UseTree::Glob(_) => imports.push(Import {
            path,
            name: "*".to_owned(),
            is_public,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below it")).expect("made");
            fs::write(path, text).expect("written");
        }
        let read = Crate::read(&dir.path().join("lib.rs")).expect("it parses");
        let found = read.circles();
        let edges = found.iter().filter_map(|circle| circle.split_once(": "));
        edges.map(|(_, edges)| edges.to_owned()).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle_also_through_a_re_export() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "use crate::A; pub struct B(Box<A>);"),
        ]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("a -> b") && found[0].contains("b -> a"),
            "{found:?}"
        );
    }

    #[test]
    fn a_child_may_extend_its_parents_type_and_no_more() {
        let parent = (
            "p/mod.rs",
            "mod c; use c::Part; pub struct P(Part); pub struct Q;",
        );
        let child = |uses: &str| format!("use super::{uses}; pub struct Part; impl P {{}}");
        let lib = ("lib.rs", "mod p;");
        assert!(circles(&[lib, parent, ("p/c.rs", &child("P"))]).is_empty());
        assert_eq!(
            circles(&[lib, parent, ("p/c.rs", &child("{P, Q}"))]).len(),
            1
        );
    }
}
