//! The one way in: `cargo xtask help` lists every recipe, and CI calls the same ones.

mod audit;
mod authz;
mod bindings;
mod checkers;
mod deploy;
mod docs_smoke;
mod first_run;
mod fuzz;
mod image;
mod interop;
mod kubernetes;
mod node_binding;
mod python_binding;
mod recipes;
mod run;
mod service;
mod stores;
mod structure;
mod vectors;
mod vm;

use recipes::{Outcome, RECIPES, Recipe};
use std::path::Path;
use std::process::ExitCode;

/// What a recipe that could not run exits with, so that `.ci/run` can tell it from success; 77 is
/// the number that Automake and Meson use for a skipped test.
const EXIT_SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(recipe) = find(&name) else {
        eprintln!("xtask: no recipe `{name}`; `cargo xtask help` lists them");
        return ExitCode::from(2);
    };
    match (recipe.run)(repository(), &rest) {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Skipped(reason)) => {
            println!("skipped: {reason}");
            ExitCode::from(EXIT_SKIPPED)
        }
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name)
}

fn help() -> String {
    let mut text = "usage: cargo xtask RECIPE [ARGUMENTS]\n\n".to_owned();
    for recipe in RECIPES {
        text.push_str(&format!("  {:<11}{}\n", recipe.name, recipe.about));
    }
    text
}

/// The repository's root: the folder that holds `xtask/`.
fn repository() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_recipe_once_with_its_line() {
        let text = help();
        for recipe in RECIPES {
            let start = format!("  {} ", recipe.name);
            assert_eq!(text.lines().filter(|line| line.starts_with(&start)).count(), 1, "{text}");
            assert!(!recipe.about.is_empty() && recipe.about.len() < 90, "{}", recipe.name);
        }
    }

    #[test]
    fn recipes_are_found_by_their_exact_name_only() {
        assert_eq!(find("structure").map(|recipe| recipe.name), Some("structure"));
        assert!(find("struct").is_none());
        assert!(find("").is_none());
    }
}
