// Holds a spec against the schema that the service publishes, and says in words what is wrong.

import { Validator } from "./vendor/json-schema/validator.js";
import { words } from "./format.js";

const validators = new WeakMap();

/** Problems of a spec as [{path, message}], the path dotted as in the service's own refusals. */
export function problemsOf(spec, schema) {
  if (!validators.has(schema)) validators.set(schema, new Validator(schema, "2020-12", false));
  const { valid, errors } = validators.get(schema).validate(spec);
  if (valid) return fractions(spec);
  const found = new Map();
  for (const error of errors) {
    const path = error.instanceLocation.replace(/^#\/?/, "").split("/").map(decodeURIComponent).join(".");
    const said = say(error, path, schema);
    if (said && !found.has(said.path)) found.set(said.path, said);
  }
  // A whole that is wrong because of a part is told by the part.
  const all = [...found.values()].filter(({ path }) => ![...found.keys()].some((other) => other !== path && path !== "" && other.startsWith(`${path}.`)));
  return all.length ? all : [{ path: "", message: "Something of this does not go together." }];
}

// What the bounds of a number cannot say of a text.
function fractions(spec) {
  const epsilon = spec.threat?.epsilon;
  if (typeof epsilon !== "string") return [];
  const [above, below] = epsilon.split("/").map(Number);
  return above / below > 0 && above / below <= 1 ? [] : [{ path: "threat.epsilon", message: "epsilon is above 0 and at most 1, for images in [0, 1]" }];
}

const QUIET = new Set(["properties", "allOf", "anyOf", "items", "$ref", "if", "then", "else", "dependentSchemas", "additionalProperties", "not", "false", "oneOf"]);

function say({ keyword, error }, path, schema) {
  const name = words(path.split(".").at(-1));
  const number = /than (?:or equal to )?\s*(-?[\d.e+-]+)\.$/.exec(error)?.[1];
  switch (keyword) {
    case "required": {
      const missing = /required property "(.+)"/.exec(error)?.[1];
      return missing && { path: path ? `${path}.${missing}` : missing, missing: true, message: `${words(missing)} is missing` };
    }
    case "minimum": return { path, message: `${name} is at least ${number}` };
    case "maximum": return { path, message: `${name} is at most ${number}` };
    case "exclusiveMinimum": return { path, message: `${name} is above ${number}` };
    case "exclusiveMaximum": return { path, message: `${name} is below ${number}` };
    case "enum": return { path, message: `${name} is one of ${/of (\[.*\])/.exec(error)?.[1].replace(/["[\]]/g, "").replaceAll(",", ", ")}` };
    case "const": return { path, message: `${name} has to be ${/match (.+)\.$/.exec(error)?.[1]} with these other choices` };
    case "pattern": return { path, message: `${name} is a number, or a fraction such as 8/255` };
    case "type": return error.includes('Expected "null"') ? null : { path, message: `${name} is a ${/Expected "(.+)"/.exec(error)?.[1].replaceAll('", "', " or a ")}` };
    case "minItems": return { path, message: `${name} has at least one entry` };
    case "uniqueItems": return { path, message: `${name} names each once` };
    case "additionalProperties": case "properties": {
      const unknown = /"(.+)" does not match/.exec(error)?.[1];
      return keyword === "additionalProperties" && unknown ? { path: path ? `${path}.${unknown}` : unknown, message: `${words(unknown)} is nothing that this method takes` } : null;
    }
    case "oneOf": return path === "target" ? { path: "target.size", missing: true, message: "say how small it has to be" } : null;
    default: return QUIET.has(keyword) ? null : { path, message: `${name}: ${error}` };
  }
}

/** The fields of a schema as [{path, schema, group}], with references followed and null left out. */
export function fieldsOf(schema, prefix = "", root = schema) {
  const found = [];
  for (const [name, part] of Object.entries(schema.properties || {})) {
    const path = prefix + name;
    const own = resolved(part, root);
    if (own.type === "object" || own.properties) found.push(...fieldsOf(own, `${path}.`, root));
    else found.push({ path, schema: own, title: words(name) });
  }
  return found;
}

function resolved(part, root) {
  if (part.$ref) return { ...resolved(root.$defs[part.$ref.split("/").at(-1)], root), ...part };
  if (part.allOf?.length === 1 && part.allOf[0].$ref) return { ...resolved(part.allOf[0], root), ...part };
  const kinds = part.anyOf?.map((of) => resolved(of, root)).filter((of) => of.type !== "null");
  return kinds?.length ? { ...kinds[0], ...part, properties: kinds[0].properties } : part;
}

export const valueAt = (spec, path) => path.split(".").reduce((at, name) => at?.[name], spec);

/** The spec with another value at the path; undefined takes it away, and what is empty with it. */
export function withValue(spec, path, value) {
  const [name, ...rest] = path.split(".");
  const next = { ...spec };
  const inner = rest.length ? withValue(spec?.[name] || {}, rest.join("."), value) : value;
  if (inner === undefined || (rest.length && Object.keys(inner).length === 0)) delete next[name];
  else next[name] = inner;
  return next;
}
