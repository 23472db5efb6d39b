//! `show` and `set`.

use crate::args::{Set, Show};
use crate::confirm::confirm;
use crate::output::clean;
use crate::{Failure, Session, views};
use abide::InstanceId;
use abide::admin::{SetOptions, StateView};
use abide::codec::{Path, Value};

pub(crate) async fn show(session: &mut Session, args: Show) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let path = args.path.unwrap_or_else(Path::root);
    let view = session.admin.state(&instance).await?;
    let value = view.value_at(&path).and_then(|value| value.to_json());
    let value = match value {
        Ok(value) => Some(value),
        // The rest is shown all the same.
        Err(_) if !view.damaged.is_empty() || view.value().is_err() => None,
        Err(_) => {
            return Err(Failure::refused(format!(
                "not found: nothing is stored at {path}"
            )));
        }
    };
    if session.out.is_json() {
        let object = views::of("state", &instance)
            .text("path", &path.to_string())
            .maybe("schema", view.schema)
            .maybe_text("changed", view.changed);
        session
            .out
            .object(object.raw("value", value.as_deref().unwrap_or("null")))?;
    }
    if value.is_none() || !session.out.is_json() {
        leaves(session, &instance, &view, &path)?;
    }
    session.out.damaged(&view.damaged)?;
    if value.is_none() {
        return Err(Failure::refused("the state cannot be read as a whole"));
    }
    Ok(())
}

/// Prints what is stored at and below a path, each with its own path.
fn leaves(
    session: &mut Session,
    instance: &InstanceId,
    view: &StateView,
    path: &Path,
) -> Result<(), Failure> {
    let below = view.leaves.iter().filter(|(of, _)| path.contains(of));
    let mut below = below.map(|(of, _)| of).peekable();
    while let Some(of) = below.next() {
        // A container's marker stands before its parts, which say more.
        if below.peek().is_some_and(|next| of.contains(next)) {
            continue;
        }
        let value = view.value_at(of).and_then(|value| value.to_json());
        let value = value.unwrap_or_else(|_| "null".to_owned());
        let object = views::of("leaf", instance)
            .text("path", &of.to_string())
            .raw("value", &value);
        let line = format!("{} = {}", clean(&of.to_string()), clean(&value));
        session.out.either(&line, object)?;
    }
    Ok(())
}

pub(crate) async fn set(session: &mut Session, args: Set) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let options = |dry_run| SetOptions {
        change_type: args.change_type,
        dry_run,
    };
    let (path, value) = (&args.path, &args.value);
    if !args.sure.yes {
        let before = session
            .admin
            .set(&instance, path, value, options(true))
            .await?;
        if args.sure.dry_run {
            return report(session, &instance, &args, &before);
        }
        confirm(args.sure, &[line(path, &before, value)?])?;
    }
    let before = session
        .admin
        .set(&instance, path, value, options(false))
        .await?;
    report(session, &instance, &args, &before)
}

fn line(path: &Path, before: &Value, after: &Value) -> Result<String, Failure> {
    let (before, after) = (before.to_json()?, after.to_json()?);
    let line = format!("{path}: {before} becomes {after}");
    Ok(clean(&line))
}

fn report(
    session: &mut Session,
    instance: &InstanceId,
    args: &Set,
    before: &Value,
) -> Result<(), Failure> {
    let object = views::of("set", instance)
        .text("path", &args.path.to_string())
        .raw("before", &before.to_json()?)
        .raw("after", &args.value.to_json()?)
        .plain("dry_run", args.sure.dry_run);
    let line = line(&args.path, before, &args.value)?;
    Ok(session.out.either(&line, object)?)
}
