// Draws the OpenAPI document. Text goes in as text, never as markup.
"use strict";

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

const append = (parent, ...children) => {
  children.forEach((child) => parent.append(child));
  return parent;
};

const resolve = (api, schema) =>
  schema && schema.$ref ? schema.$ref.slice(2).split("/").reduce((at, part) => at[part], api) : schema;

const kind = (api, schema) => {
  if (schema === true || !schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => kind(api, one)).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "any";
  return schema.items ? `${type} of ${kind(api, schema.items)}` : schema.format ? `${type} (${schema.format})` : type;
};

const fields = (api, given) => {
  const schema = resolve(api, given);
  if (!schema || !schema.properties) return element("p", kind(api, given));
  const table = element("table");
  for (const [name, field] of Object.entries(schema.properties)) {
    const needed = (schema.required || []).includes(name) ? " *" : "";
    const row = append(element("tr"), append(element("td"), element("code", name + needed)), element("td", kind(api, field)));
    append(table, append(row, element("td", (field && field.description) || "", "what")));
  }
  return table;
};

const parameters = (api, list) => {
  const table = element("table");
  for (const one of list) {
    const name = element("code", one.name + (one.required ? " *" : ""));
    const row = append(element("tr"), append(element("td"), name), element("td", `${one.in}, ${kind(api, one.schema)}`));
    append(table, append(row, element("td", one.description || "", "what")));
  }
  return table;
};

const operation = (api, path, method, told) => {
  const box = element("details");
  const head = append(element("summary"), element("span", method.toUpperCase(), "method"), element("code", path));
  append(box, append(head, element("span", `  ${told.summary}`, "what")), element("p", told.description || ""));
  if (told.parameters) append(box, element("h4", "Parameters"), parameters(api, told.parameters));
  if (told.requestBody) {
    append(box, element("h4", "Body"), fields(api, told.requestBody.content["application/json"].schema));
  }
  for (const [status, answer] of Object.entries(told.responses)) {
    const [type, content] = Object.entries(answer.content || {})[0] || [];
    append(box, element("h4", `${status} ${answer.description}${type ? `, ${type}` : ""}`));
    if (status < "300" && content) append(box, fields(api, content.schema));
  }
  box.dataset.words = `${method} ${path} ${told.summary}`.toLowerCase();
  return box;
};

const draw = (api) => {
  document.getElementById("about").prepend(`${api.info.description} Version ${api.info.version}. `);
  const main = document.getElementById("operations");
  const tags = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      const tag = told.tags[0];
      if (!tags.has(tag)) tags.set(tag, append(element("section"), element("h2", tag)));
      append(tags.get(tag), operation(api, path, method, told));
    }
  }
  append(main, ...tags.values());
  document.getElementById("filter").addEventListener("input", (event) => {
    const word = event.target.value.toLowerCase();
    for (const box of main.querySelectorAll("details")) box.hidden = !box.dataset.words.includes(word);
    for (const section of main.querySelectorAll("section")) {
      section.hidden = !section.querySelector("details:not([hidden])");
    }
  });
};

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(draw)
  .catch((error) => document.getElementById("operations").append(`The document can't be drawn: ${error}`));
