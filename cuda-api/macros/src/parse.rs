//! The grammar, strictly: what is not understood is an error at the word that is not.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Expr, Ident, LitInt, LitStr, Result, Token, Type, bracketed, parenthesized};

pub struct Chapter {
    pub name: Ident,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Local,
    Posted,
    Sync,
    Refused,
}

pub struct Row {
    pub docs: Vec<Attribute>,
    pub id: u32,
    pub class: Class,
    pub may_block: bool,
    pub internal: bool,
    /// File of the hand-written guest half.
    pub custom: Option<LitStr>,
    /// The row whose frame the hand-written guest half sends; this one has none of its own.
    pub over: Option<Ident>,
    /// Why a refused row is.
    pub reason: Option<LitStr>,
    /// Other exported names of the same function, with the per-thread ones marked.
    pub aliases: Vec<(Ident, bool)>,
    pub name: Ident,
    /// The C arguments.
    pub args: Vec<Arg>,
    /// The frame's fields and the reply's, where they differ from the C arguments.
    pub wire: Option<(Vec<Arg>, Vec<Arg>)>,
    /// The row as written, for the fingerprint.
    pub shape: String,
}

pub struct Arg {
    pub name: Ident,
    pub kind: Kind,
}

pub enum Kind {
    Value(Type),
    Handle(Type),
    New(Type),
    Free(Type),
    In(Type),
    InArray(Type, Ident),
    Out(Type),
    OptOut(Type),
    OutArray(Type, Ident),
    CStr,
    DevIn(Expr),
    DevOut(Expr),
    /// A value of which only these bits may be set; the others exist, and no device here has them.
    Bits(LitInt, Option<LitInt>),
    /// Bytes in the frame, with their own length.
    Bytes,
    Bulk,
    Fill,
}

impl Parse for Chapter {
    fn parse(input: ParseStream) -> Result<Self> {
        let name: Ident = input.parse()?;
        input.parse::<Token![;]>()?;
        let (mut rows, mut ids, mut names) = (Vec::new(), HashSet::new(), HashSet::new());
        while !input.is_empty() {
            let row: Row = input.parse()?;
            if !ids.insert(row.id) {
                return Err(syn::Error::new(
                    row.name.span(),
                    format!("wire id {:#06x} is used twice", row.id),
                ));
            }
            for n in std::iter::once(&row.name).chain(row.aliases.iter().map(|(a, _)| a)) {
                if !names.insert(n.to_string()) {
                    return Err(syn::Error::new(n.span(), "this name has a row already"));
                }
            }
            rows.push(row);
        }
        Ok(Chapter { name, rows })
    }
}

impl Parse for Row {
    fn parse(input: ParseStream) -> Result<Self> {
        let docs = input.call(Attribute::parse_outer)?;
        let id_lit: LitInt = input.parse()?;
        let id = id_lit.base10_parse()?;
        let class_word: Ident = input.parse()?;
        let class = match class_word.to_string().as_str() {
            "local" => Class::Local,
            "posted" => Class::Posted,
            "sync" => Class::Sync,
            "refused" => Class::Refused,
            other => {
                return Err(syn::Error::new(
                    class_word.span(),
                    format!("`{other}` is not a class: local, posted, sync or refused"),
                ));
            }
        };
        let mut row = Row {
            docs,
            id,
            class,
            may_block: false,
            internal: false,
            custom: None,
            over: None,
            reason: None,
            aliases: Vec::new(),
            name: Ident::new("_unnamed", Span::call_site()),
            args: Vec::new(),
            wire: None,
            shape: String::new(),
        };
        if class == Class::Local {
            row.custom = Some(input.parse()?);
        }
        if class == Class::Refused {
            row.reason = Some(input.parse()?);
        }
        let (mut ptsz, mut ptds) = (false, false);
        while !input.peek(Token![fn]) {
            let flag: Ident = input.parse()?;
            match flag.to_string().as_str() {
                "may_block" => row.may_block = true,
                "internal" => row.internal = true,
                "custom" => row.custom = Some(input.parse()?),
                "over" => row.over = Some(input.parse()?),
                "ptsz" => ptsz = true,
                "ptds" => ptds = true,
                other => {
                    return Err(syn::Error::new(
                        flag.span(),
                        format!(
                            "`{other}` is not a flag: may_block, internal, custom \"file\", over, ptsz or ptds"
                        ),
                    ));
                }
            }
        }
        input.parse::<Token![fn]>()?;
        row.name = input.parse()?;
        let mut shape = TokenStream::new();
        if input.peek(syn::token::Paren) {
            let content;
            parenthesized!(content in input);
            shape.extend(content.fork().parse::<TokenStream>()?);
            row.args = args(&content)?;
        } else if class != Class::Refused {
            return Err(input.error("only a refused row may leave its arguments out"));
        }
        if input.peek(Ident) && input.fork().parse::<Ident>()? == "wire" {
            input.parse::<Ident>()?;
            let content;
            parenthesized!(content in input);
            shape.extend(quote::quote!(wire));
            shape.extend(content.fork().parse::<TokenStream>()?);
            let ins = args(&content)?;
            let outs = if input.peek(Token![->]) {
                input.parse::<Token![->]>()?;
                let content;
                parenthesized!(content in input);
                shape.extend(quote::quote!(->));
                shape.extend(content.fork().parse::<TokenStream>()?);
                args(&content)?
            } else {
                Vec::new()
            };
            row.wire = Some((ins, outs));
        }
        if ptsz {
            row.aliases.push((quote::format_ident!("{}_ptsz", row.name), true));
        }
        if ptds {
            row.aliases.push((quote::format_ident!("{}_ptds", row.name), true));
        }
        while input.peek(Ident) && input.fork().parse::<Ident>()? == "also" {
            input.parse::<Ident>()?;
            row.aliases.push((input.parse()?, false));
        }
        input.parse::<Token![;]>()?;
        // Without blanks: how tokens are spaced as text is the compiler's business, and the shape is hashed.
        let shape: String = shape.to_token_stream().to_string().split_whitespace().collect();
        row.shape = format!("{class_word} {} {shape}", row.name);
        row.check()?;
        Ok(row)
    }
}

impl Row {
    fn check(&self) -> Result<()> {
        let fail = |what: &str| Err(syn::Error::new(self.name.span(), what));
        let sends = matches!(self.class, Class::Posted | Class::Sync);
        if let Some(over) = &self.over {
            if self.custom.is_none() || self.wire.is_some() {
                return Err(syn::Error::new(over.span(), "`over` belongs to a `custom` row without `wire`"));
            }
            return Ok(());
        }
        if self.custom.is_some() && sends && self.wire.is_none() {
            return fail("a row with a hand-written guest half says what it sends: `wire (…)`");
        }
        if self.wire.is_some() && !(sends && (self.custom.is_some() || self.internal)) {
            return fail("`wire` belongs to a posted or sync row that is `custom` or `internal`");
        }
        let outputs = match &self.wire {
            Some((_, outs)) => !outs.is_empty(),
            None => self
                .args
                .iter()
                .any(|a| matches!(a.kind, Kind::Out(_) | Kind::OptOut(_) | Kind::OutArray(..) | Kind::Fill)),
        };
        if self.class == Class::Posted && outputs && self.custom.is_none() {
            return fail("a posted call has no outputs: nobody waits for them");
        }
        for list in std::iter::once(&self.args).chain(self.wire.iter().flat_map(|(i, o)| [i, o])) {
            for arg in list {
                let names: Vec<Ident> = match &arg.kind {
                    Kind::InArray(_, n) | Kind::OutArray(_, n) => vec![n.clone()],
                    Kind::DevIn(e) | Kind::DevOut(e) => {
                        factors(e)?.into_iter().filter_map(|f| f.ok()).collect()
                    }
                    _ => continue,
                };
                for n in names {
                    let scope = if self.wire.as_ref().is_some_and(|(_, o)| std::ptr::eq(list, o)) {
                        self.wire.as_ref().map_or(&self.args, |(i, _)| i)
                    } else {
                        list
                    };
                    if !scope.iter().any(|a| a.name == n && matches!(a.kind, Kind::Value(_))) {
                        return Err(syn::Error::new(
                            n.span(),
                            "this length names no value argument of the row",
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The factors of a length: names (Ok) and literals (Err keeps the expression).
pub fn factors(e: &Expr) -> Result<Vec<std::result::Result<Ident, Expr>>> {
    match e {
        Expr::Path(p) if p.path.get_ident().is_some() => Ok(vec![Ok(p.path.get_ident().unwrap().clone())]),
        Expr::Lit(_) => Ok(vec![Err(e.clone())]),
        Expr::Call(c)
            if matches!(&*c.func, Expr::Path(p) if p.path.is_ident("rows")) && c.args.len() == 3 =>
        {
            let mut all = Vec::new();
            for a in &c.args {
                all.extend(factors(a)?);
            }
            Ok(all)
        }
        Expr::Binary(b) if matches!(b.op, syn::BinOp::Mul(_)) => {
            let mut left = factors(&b.left)?;
            left.extend(factors(&b.right)?);
            Ok(left)
        }
        other => Err(syn::Error::new_spanned(
            other,
            "a length is a product of arguments and literals, or rows(pitch, width, height)",
        )),
    }
}

fn args(input: ParseStream) -> Result<Vec<Arg>> {
    let mut list = Vec::new();
    while !input.is_empty() {
        list.push(arg(input)?);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(list)
}

fn arg(input: ParseStream) -> Result<Arg> {
    if input.peek(Token![in]) {
        input.parse::<Token![in]>()?;
        let name = input.parse()?;
        return Ok(Arg {
            name,
            kind: match typed(input)? {
                (ty, Some(n)) => Kind::InArray(ty, n),
                (ty, None) => Kind::In(ty),
            },
        });
    }
    let word: Ident = input.parse()?;
    if input.peek(Token![:]) {
        input.parse::<Token![:]>()?;
        return Ok(Arg { name: word, kind: Kind::Value(input.parse()?) });
    }
    let mut word = word;
    let optional = word == "opt";
    if optional {
        word = input.parse()?;
        if word != "out" {
            return Err(syn::Error::new(word.span(), "`opt` goes before `out`"));
        }
    }
    let name: Ident = input.parse()?;
    let kind = match word.to_string().as_str() {
        "cstr" => Kind::CStr,
        "bytes" => Kind::Bytes,
        "bulk" => Kind::Bulk,
        "fill" => Kind::Fill,
        "bits" => {
            input.parse::<Token![:]>()?;
            let content;
            bracketed!(content in input);
            let mask = content.parse()?;
            let without = if content.is_empty() {
                None
            } else {
                content.parse::<Token![,]>()?;
                Some(content.parse()?)
            };
            Kind::Bits(mask, without)
        }
        "devin" | "devout" => {
            input.parse::<Token![:]>()?;
            let content;
            bracketed!(content in input);
            let len: Expr = content.parse()?;
            factors(&len)?;
            if word == "devin" { Kind::DevIn(len) } else { Kind::DevOut(len) }
        }
        form => {
            let (ty, count) = typed(input)?;
            match (form, count, optional) {
                ("handle", None, _) => Kind::Handle(ty),
                ("new", None, _) => Kind::New(ty),
                ("free", None, _) => Kind::Free(ty),
                ("out", None, false) => Kind::Out(ty),
                ("out", None, true) => Kind::OptOut(ty),
                ("out", Some(n), false) => Kind::OutArray(ty, n),
                _ => {
                    return Err(syn::Error::new(
                        word.span(),
                        format!(
                            "`{form}` is not an argument form here: handle, new, free, in, out, opt out, cstr, devin, devout, bits, bytes, bulk, fill"
                        ),
                    ));
                }
            }
        }
    };
    Ok(Arg { name, kind })
}

/// `: T` or `: [T; n]`.
fn typed(input: ParseStream) -> Result<(Type, Option<Ident>)> {
    input.parse::<Token![:]>()?;
    if input.peek(syn::token::Bracket) {
        let fork = input.fork();
        let content;
        bracketed!(content in fork);
        let _: Type = content.parse()?;
        content.parse::<Token![;]>()?;
        if content.peek(Ident) {
            let content;
            bracketed!(content in input);
            let ty = content.parse()?;
            content.parse::<Token![;]>()?;
            return Ok((ty, Some(content.parse()?)));
        }
    }
    Ok((input.parse()?, None))
}

#[cfg(test)]
mod tests {
    use super::Chapter;

    /// The error of a table with these rows.
    fn refused(rows: &str) -> String {
        match syn::parse_str::<Chapter>(&format!("memory; {rows}")) {
            Ok(_) => panic!("taken: {rows}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (rows, why) in [
            ("0x1 quick fn cuA(x: u32);", "`quick` is not a class"),
            ("0x1 sync eager fn cuA(x: u32);", "`eager` is not a flag"),
            ("0x1 sync fn cuA(borrow x: u32);", "`borrow` is not an argument form"),
            ("0x1 posted fn cuA(out x: u32);", "a posted call has no outputs"),
            ("0x1 sync fn cuA(in x: [u32; n]);", "names no value argument"),
            ("0x1 sync fn cuA(devin x: [n + 1], n: usize);", "a length is a product"),
            ("0x1 sync fn cuA(devout x: [rows(p, w, h)], p: usize, w: usize);", "names no value argument"),
            ("0x1 sync custom \"f.rs\" fn cuA(x: u32);", "says what it sends"),
            ("0x1 sync fn cuA(x: u32) wire (x: u32);", "`wire` belongs to"),
            ("0x1 sync over cuB fn cuA(x: u32);", "`over` belongs to"),
            ("0x1 sync fn cuA;", "only a refused row"),
            ("0x1 sync fn cuA(); 0x1 sync fn cuB();", "used twice"),
            ("0x1 sync fn cuA(); 0x2 sync fn cuA();", "has a row already"),
            ("0x1 sync ptsz fn cuA(); 0x2 refused \"why\" fn cuA_ptsz;", "has a row already"),
            ("0x1 sync fn cuA(opt handle x: H);", "`opt` goes before `out`"),
        ] {
            let said = refused(rows);
            assert!(said.contains(why), "{rows}: {said}");
        }
    }

    #[test]
    fn every_form_is_understood() {
        let rows = "0x1 sync may_block ptsz fn cuA(a: u32, handle b: H, new c: H, free d: H, in e: T, in f: [T; a], out g: T, \
            opt out h: T, out i: [T; a], cstr j, devin k: [a * 4], devout l: [rows(a, a * 2, a)], bits m: [7]) also cuA_old; \
            0x2 posted custom \"f.rs\" fn cuB(x: *mut u8) wire (bytes a, bulk b, fill c) -> (d: u64); \
            0x3 sync custom \"f.rs\" over cuB fn cuC(); 0x4 local \"f.rs\" fn cuD(); 0x5 refused \"why\" fn cuE; \
            0x6 posted internal fn vgpuF() wire (x: u64);";
        let chapter = syn::parse_str::<Chapter>(&format!("memory; {rows}")).unwrap();
        assert_eq!(chapter.rows.len(), 6);
        crate::emit::chapter(&chapter).unwrap();
    }

    #[test]
    fn a_shape_has_no_blanks_of_the_compilers_making() {
        let chapter = syn::parse_str::<Chapter>("m; 0x1 sync fn cuA(in  x :[T;n] , n:usize);").unwrap();
        assert_eq!(chapter.rows[0].shape, "sync cuA inx:[T;n],n:usize");
    }
}
