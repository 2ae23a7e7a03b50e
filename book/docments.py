"For the reference: comments beside parameters and fields (docments), and the texts of numbers, as descriptions."
import ast, io, tokenize
import griffe

def comments(code: str, first: int, last: int) -> dict[int, str]:
    "The comments at the ends of lines `first` to `last`."
    lines = code.splitlines(keepends=True)[first - 1:last]
    text = io.StringIO(''.join(lines))
    out = {}
    try:
        for token in tokenize.generate_tokens(text.readline):
            if token.type == tokenize.COMMENT: out[first + token.start[0] - 1] = token.string.lstrip('# ')
    except (tokenize.TokenError, IndentationError): pass # the lines end within a function, as they should
    return out

def ends(args: ast.arguments) -> list[tuple[ast.arg, int]]:
    "Each parameter with the line where it ends, its default included."
    given = [*args.posonlyargs, *args.args]
    defaults = [None]*(len(given) - len(args.defaults)) + args.defaults + args.kw_defaults
    pairs = list(zip([*given, *args.kwonlyargs], defaults))
    pairs += [(arg, None) for arg in (args.vararg, args.kwarg) if arg]
    return [(arg, (default or arg).end_lineno) for arg, default in pairs]

def text_of(value: ast.expr | None) -> str | None:
    "What `number(.5, 'text')` or `rule(True, False, 'text')` says of a field."
    if not (isinstance(value, ast.Call) and getattr(value.func, 'id', '') in ('number', 'rule')): return None
    texts = [a.value for a in value.args[1:] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return texts[-1] if texts else None

class Docments(griffe.Extension):
    "Adds descriptions to what griffe has read."

    def on_function_instance(self, *, node: ast.AST, func: griffe.Function, agent: griffe.Visitor, **kwargs) -> None:
        notes = comments(agent.code, node.lineno, node.body[0].lineno - 1)
        told = notes.pop(node.returns.end_lineno, None) if node.returns else None
        lines = ends(node.args)
        taken = [line for _, line in lines]
        described = [(arg.arg, notes[line]) for arg, line in lines if line in notes and taken.count(line) == 1]
        sections = []
        if described:
            rows = [griffe.DocstringParameter(name, description=text, annotation=func.parameters[name].annotation,
                value=func.parameters[name].default) for name, text in described]
            sections.append(griffe.DocstringSectionParameters(rows))
        if told:
            row = griffe.DocstringReturn('', description=told, annotation=func.returns)
            sections.append(griffe.DocstringSectionReturns([row]))
        if not sections: return
        func.docstring = func.docstring or griffe.Docstring('', parent=func)
        func.docstring.parsed = [griffe.DocstringSectionText(func.docstring.value), *sections]

    def on_attribute_instance(self, *, node: ast.AST, attr: griffe.Attribute, agent: griffe.Visitor, **kwargs) -> None:
        if isinstance(node, ast.FunctionDef): return # a property has a docstring
        text = text_of(node.value) or comments(agent.code, node.lineno, node.end_lineno).get(node.end_lineno)
        if text and not attr.docstring: attr.docstring = griffe.Docstring(text, parent=attr)
