//! Commands that are compiled when they are used: each has a Cargo feature, which is off by default.

use gangplank_model::error::usage;
use gangplank_system::context::{Context, is_left_out, left_out_hint, var};

/// Continues as an xtask compiled with more features, which takes some seconds the first time, a minute with `s3`.
/// `gangplank/NAME` is a feature of the engine, other names are features of the project's xtask. Returns only on failure.
pub fn compile_with(ctx: &Context, more: &[&str], what: &str) -> anyhow::Error {
    if !ctx.root.join("xtask/Cargo.toml").is_file() {
        return usage(format!(
            "this xtask was compiled without {what}, and {} has none to compile",
            ctx.root.display()
        ))
        .hint("`cd PROJECT`, then the same command with absolute paths")
        .into();
    }
    let names = more.iter().map(|feature| feature.trim_start_matches("gangplank/"));
    if let Some(left_out) = names.clone().find(|name| is_left_out(&ctx.root, name)) {
        return usage(format!("this project was made without `{left_out}`, which this command needs"))
            .hint(left_out_hint(left_out))
            .into();
    }
    match union(ctx.var(var::FEATURES), more) {
        Ok(features) => {
            ctx.note(format!("this xtask was compiled without {what}: compiling it with {}", more.join(" and ")));
            ctx.become_xtask_with(&features)
        }
        Err(feature) => {
            let cause = match feature.strip_prefix("gangplank/") {
                Some(part) => format!("its engine lacks `{part}`: use that of a checkout of Gangplank"),
                None => format!("write in xtask/Cargo.toml: [features] {feature} = [\"gangplank/{feature}\"]"),
            };
            usage(format!("this xtask was compiled with the feature `{feature}`, and still without {what}"))
                .hint(format!("`unset {}`; if it is not set, {cause}", var::FEATURES))
                .into()
        }
    }
}

/// The comma-separated features of this process, and more. Fails with a feature that this process should have.
fn union<'a>(features: Option<&str>, more: &[&'a str]) -> Result<String, &'a str> {
    let mut all: Vec<&str> = features.into_iter().flat_map(|features| features.split(',')).collect();
    for &feature in more {
        if all.contains(&feature) {
            return Err(feature);
        }
        all.push(feature);
    }
    Ok(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_adds_features_and_refuses_one_that_was_tried() {
        assert_eq!(union(None, &["gangplank/local-ci", "s3"]).as_deref(), Ok("gangplank/local-ci,s3"));
        assert_eq!(union(Some("gangplank/local-ci"), &["s3"]).as_deref(), Ok("gangplank/local-ci,s3"));
        assert_eq!(union(Some("s3-extra"), &["s3"]).as_deref(), Ok("s3-extra,s3"));
        assert_eq!(union(Some("gangplank/local-ci,s3"), &["s3"]), Err("s3"));
    }
}
