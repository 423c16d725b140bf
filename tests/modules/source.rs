//! The source tree, parsed: the paths that each file names, its types, its `unsafe`.
//!
//! No macro is expanded. Paths inside macro calls and macro definitions are found in their tokens.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The name by which the programs call the library.
pub const LIBRARY: &str = "quickio";

/// The macros of `tracing` that log above the level debug, or at any level.
const LOG_MACROS: &[&str] = &["error", "warn", "info", "event"];

/// All files of the tree. `mod` declarations have been followed, so that a name can be resolved to a file.
pub struct Tree {
    pub files: Vec<SourceFile>,
    /// The place in `files` of each module that is a file.
    places: HashMap<Module, usize>,
    modules: HashMap<Module, Scope>,
}

/// The absolute path of a module, beginning with the name of its crate: `["quickio", "shard", "http"]`.
pub type Module = Vec<String>;

/// One file.
pub struct SourceFile {
    /// The path below `src`.
    pub path: String,
    pub module: Module,
    /// `true` if the file is compiled for tests only.
    pub is_test: bool,
    pub named: Vec<Named>,
    pub types: Vec<Defined>,
    /// The lines in which `unsafe` stands.
    pub unsafe_lines: Vec<usize>,
    /// The lines with a call of a macro of `tracing` that logs above the level debug. Those of tests do not count.
    pub log_lines: Vec<usize>,
}

/// A path as it is written, of at least two segments or in a `use`.
pub struct Named {
    pub line: usize,
    pub segments: Vec<String>,
    /// The module in which the path is written.
    within: Module,
    pub is_test: bool,
}

/// A type's definition.
pub struct Defined {
    pub line: usize,
    pub name: String,
    pub is_test: bool,
}

/// The names that a module gives to other modules' items, and its child modules.
#[derive(Default)]
struct Scope {
    imports: HashMap<String, Named>,
    children: HashSet<String>,
}

impl Tree {
    /// Reads every file below a folder.
    pub fn read(folder: &Path) -> Tree {
        let mut texts = Vec::new();
        for path in
            files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"))
        {
            let name = path.strip_prefix(folder).unwrap().to_str().expect("a file name in UTF-8").to_string();
            texts.push((name, fs::read_to_string(&path).expect("a source file can be read")));
        }
        Tree::parse(&texts)
    }

    /// Parses files, each given as its path and its text.
    pub fn parse(texts: &[(String, String)]) -> Tree {
        let mut tree = Tree { files: Vec::new(), places: HashMap::new(), modules: HashMap::new() };
        let mut test_modules = HashSet::new();
        for (path, text) in texts {
            let parsed = syn::parse_file(text).unwrap_or_else(|error| {
                panic!("{path}:{}: {error}", error.span().start().line);
            });
            let module = module_of(path);
            tree.modules.entry(module.clone()).or_default();
            let mut reader = Reader {
                file: SourceFile {
                    path: path.clone(),
                    module: module.clone(),
                    is_test: false,
                    named: Vec::new(),
                    types: Vec::new(),
                    log_lines: Vec::new(),
                    unsafe_lines: unsafe_lines(text.parse().expect("a parsed file has tokens")),
                },
                within: module,
                is_test: false,
                modules: &mut tree.modules,
                test_modules: &mut test_modules,
            };
            reader.visit_file(&parsed);
            tree.places.insert(reader.file.module.clone(), tree.files.len());
            tree.files.push(reader.file);
        }
        for file in &mut tree.files {
            file.is_test = (1..=file.module.len()).any(|len| test_modules.contains(&file.module[..len]));
        }
        tree
    }

    /// Returns whether a module is the root of its crate or is declared by `mod`.
    pub fn is_declared(&self, module: &[String]) -> bool {
        let Some((name, above)) = module.split_last().filter(|(_, above)| !above.is_empty()) else {
            return true;
        };
        self.modules.get(above).is_some_and(|scope| scope.children.contains(name))
    }

    /// Returns the file in which the item of a path is defined, or `None` if it is not an item of this tree.
    ///
    /// A re-export or an import is followed to the definition.
    pub fn file_of(&self, named: &Named) -> Option<&SourceFile> {
        let mut module = self.resolve(named, 0)?;
        loop {
            // The nearest module around the item that is a file.
            if let Some(&place) = self.places.get(&module) {
                return Some(&self.files[place]);
            }
            module.pop()?;
        }
    }

    /// Returns the module in which the item of a path is defined, or the module that the path names.
    fn resolve(&self, named: &Named, depth: usize) -> Option<Module> {
        const IMPORTS_MAX: usize = 16;
        assert!(depth < IMPORTS_MAX, "imports in a circle: {:?}", named.segments);
        let mut segments = named.segments.iter();
        let mut module = match segments.next()?.as_str() {
            "crate" => vec![named.within[0].clone()],
            "self" => named.within.clone(),
            "super" => parent(&named.within)?,
            LIBRARY if self.modules.contains_key(&[LIBRARY.to_string()][..]) => vec![LIBRARY.to_string()],
            first if self.modules[&named.within].children.contains(first) => child(&named.within, first),
            _ => return None,
        };
        while let Some(segment) = segments.next() {
            let scope = &self.modules[&module];
            if segment == "super" {
                module = parent(&module)?;
            } else if scope.children.contains(segment) {
                module = child(&module, segment);
            } else if let Some(import) = scope.imports.get(segment) {
                let mut target = import.segments.clone();
                target.extend(segments.cloned());
                let target =
                    Named { line: 0, segments: target, within: import.within.clone(), is_test: false };
                return self.resolve(&target, depth + 1);
            } else {
                break;
            }
        }
        Some(module)
    }
}

fn child(module: &[String], name: &str) -> Module {
    let mut child = module.to_vec();
    child.push(name.to_string());
    child
}

fn parent(module: &[String]) -> Option<Module> {
    (module.len() > 1).then(|| module[..module.len() - 1].to_vec())
}

/// The module of a file: its crate, then its folders and its name.
fn module_of(path: &str) -> Module {
    let (krate, below) = match path.strip_prefix("bin/") {
        Some(program) => program.split_once('/').unwrap_or((program.trim_end_matches(".rs"), "main.rs")),
        None if path == "main.rs" => ("main", path),
        None => (LIBRARY, path),
    };
    let mut module = vec![krate.to_string()];
    module.extend(below.trim_end_matches(".rs").split('/').map(str::to_string));
    if ["lib", "main", "mod"].contains(&module.last().unwrap().as_str()) {
        module.pop();
    }
    module
}

/// The files below a folder, in order. Folders of installed packages are passed over.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    folders.push(path);
                }
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Collects the contents of one file.
struct Reader<'a> {
    file: SourceFile,
    /// The module around the visited item: the file's, or an inline module in it.
    within: Module,
    is_test: bool,
    modules: &'a mut HashMap<Module, Scope>,
    test_modules: &'a mut HashSet<Module>,
}

impl Reader<'_> {
    fn scope(&mut self) -> &mut Scope {
        self.modules.entry(self.within.clone()).or_default()
    }

    fn add(&mut self, line: usize, segments: Vec<String>) {
        self.file.named.push(Named { line, segments, within: self.within.clone(), is_test: self.is_test });
    }

    fn define(&mut self, name: &syn::Ident) {
        let (line, name, is_test) = (name.span().start().line, name.to_string(), self.is_test);
        self.file.types.push(Defined { line, name, is_test });
    }

    /// Adds the paths of a `use` tree, and the names that they get.
    fn import(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let line = tree.span().start().line;
        let (name, alias) = match tree {
            syn::UseTree::Path(path) => {
                return self.import(&child(prefix, &path.ident.to_string()), &path.tree);
            }
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(prefix, tree));
            }
            syn::UseTree::Glob(_) => return self.add(line, prefix.to_vec()),
            syn::UseTree::Name(name) => (&name.ident, &name.ident),
            syn::UseTree::Rename(rename) => (&rename.ident, &rename.rename),
        };
        let segments = if name == "self" { prefix.to_vec() } else { child(prefix, &name.to_string()) };
        let alias = if alias == "self" { segments.last().cloned() } else { Some(alias.to_string()) };
        let (within, is_test) = (self.within.clone(), self.is_test);
        let import = Named { line, segments: segments.clone(), within, is_test };
        // An import that only tests have must not hide another one.
        if !is_test || !self.scope().imports.contains_key(alias.as_ref().unwrap()) {
            self.scope().imports.insert(alias.unwrap(), import);
        }
        self.add(line, segments);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let was_test = self.is_test;
        self.is_test |= attributes(item).iter().any(is_for_tests);
        visit::visit_item(self, item);
        self.is_test = was_test;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        self.scope().children.insert(name.clone());
        self.within.push(name);
        self.scope();
        if self.is_test {
            self.test_modules.insert(self.within.clone());
        }
        visit::visit_item_mod(self, item);
        self.within.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(path.span().start().line, segments);
        }
        visit::visit_path(self, path);
    }

    /// `pub(crate)` names nobody.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let logs =
            called.path.segments.last().is_some_and(|name| LOG_MACROS.iter().any(|it| name.ident == it));
        if logs && !self.is_test {
            self.file.log_lines.push(called.path.span().start().line);
        }
        for (line, segments) in paths_in(called.tokens.clone()) {
            self.add(line, segments);
        }
        visit::visit_macro(self, called);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.define(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.define(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.define(&item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define(&item.ident);
        visit::visit_item_type(self, item);
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns whether an attribute is `#[cfg(test)]`, also with further conditions, or `#[test]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let condition = match &attribute.meta {
        syn::Meta::Path(path) => return path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
        _ => return false,
    };
    let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.contains(&"test") && !words.contains(&"not")
}

/// The paths of at least two segments in a macro's tokens.
fn paths_in(tokens: TokenStream) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut path: (usize, Vec<String>) = (0, Vec::new());
    let mut colons = 0;
    // The end of the tokens ends a path, as anything else does that is neither a word nor a colon.
    for token in tokens.into_iter().map(Some).chain([None]) {
        match &token {
            Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            Some(TokenTree::Ident(ident)) if colons == 2 && !path.1.is_empty() => {
                path.1.push(ident.to_string());
                colons = 0;
                continue;
            }
            Some(TokenTree::Group(group)) => {
                let is_use = colons == 2 && group.delimiter() == Delimiter::Brace;
                let prefix = if is_use { std::mem::take(&mut path.1) } else { Vec::new() };
                found.extend(grouped(&prefix, group.stream()));
            }
            _ => {}
        }
        if path.1.len() > 1 {
            found.push(std::mem::take(&mut path));
        }
        path = match &token {
            // After two colons without a word before them: `::std::x`.
            Some(TokenTree::Ident(ident)) if colons != 2 => {
                (ident.span().start().line, vec![ident.to_string()])
            }
            _ => (0, Vec::new()),
        };
        colons = 0;
    }
    found
}

/// The paths in a group of tokens; if it stands behind `prefix::`, as the groups of `use` do, then with that prefix.
fn grouped(prefix: &[String], tokens: TokenStream) -> Vec<(usize, Vec<String>)> {
    if prefix.is_empty() {
        return paths_in(tokens);
    }
    let items = tokens.into_iter().collect::<Vec<_>>();
    let items = items.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','));
    let mut found = Vec::new();
    for item in items {
        let Some(TokenTree::Ident(first)) = item.first() else { continue };
        found.push((first.span().start().line, child(prefix, &first.to_string())));
    }
    found
}

/// The lines in which the word `unsafe` stands.
fn unsafe_lines(tokens: TokenStream) -> Vec<usize> {
    let mut lines = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Group(group) => lines.extend(unsafe_lines(group.stream())),
            _ => {}
        }
    }
    lines
}
