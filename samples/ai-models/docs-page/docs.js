// Shows the OpenAPI description of this service, and sends requests to the paths in it.

/** The root of the service, which may be below a gateway's path prefix. */
const root = new URL("..", import.meta.url);

/** An element with text and children. Text is never parsed as HTML. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== ""));
  return element;
}

let description;

/** What a `$ref` refers to. */
function resolve(value) {
  if (!value?.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((at, name) => at[name.replace(/~1/g, "/").replace(/~0/g, "~")], description);
}

/** The name of a type, with links to the schemas. */
function typeOf(schema) {
  if (!schema) return ["any"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [el("a", { href: `#${name}` }, name)];
  }
  const choices = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choices) {
    const join = schema.allOf ? " and " : " or ";
    return choices.flatMap((choice, index) => [...(index ? [join] : []), ...typeOf(choice)]);
  }
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  const type = [schema.type ?? "object"].flat().join(" or ");
  return type.startsWith("array") ? ["list of ", ...typeOf(schema.items)] : [type];
}

/** The members of an object. */
function members(schema) {
  const all = [schema, ...(schema.allOf ?? []), ...(schema.oneOf ?? [])].map(resolve);
  const rows = all.flatMap((part) => Object.entries(part.properties ?? {}).map(([name, member]) =>
    el("tr", {}, el("th", { scope: "row" }, el("code", {}, name), part.required?.includes(name) ? "" : el("span", { class: "muted" }, " optional")), el("td", {}, ...typeOf(member), " ", el("span", { class: "muted" }, member.description ?? "")))));
  return rows.length ? el("table", {}, el("tbody", {}, ...rows)) : el("p", {}, ...typeOf(schema));
}

/** A request to try out: fields for the parameters and the body, and the response. */
function tryOut(method, path, operation) {
  const id = `${method} ${path}`.replace(/\W+/g, "-");
  const fields = (operation.parameters ?? []).map(resolve).map((parameter) => {
    const input = el("input", { value: parameter.example ?? parameter.schema?.example ?? "", required: parameter.required });
    return { parameter, input, label: el("label", {}, el("span", {}, el("code", {}, parameter.name), " ", el("span", { class: "muted" }, parameter.description ?? "")), input) };
  });
  const content = resolve(operation.requestBody)?.content?.["application/json"];
  const examples = content ? Object.entries(content.examples ?? { example: { value: content.example ?? {} } }) : [];
  const show = (value) => JSON.stringify(value, null, 2);
  const body = content && el("textarea", { spellcheck: "false" }, show(resolve(examples[0][1]).value));
  const choice = examples.length > 1 && el(
    "select", { onchange: () => (body.value = show(resolve(examples[choice.selectedIndex][1]).value)) },
    ...examples.map(([name, example]) => el("option", {}, resolve(example).summary ?? name)),
  );
  const status = el("p", { role: "status", id: `${id}-status` });
  const output = el("pre", { hidden: true, tabindex: "0", role: "region", "aria-label": "Response" });
  const form = el(
    "form", {
      onsubmit: (event) => {
        event.preventDefault();
        send(method, path, fields, body, status, output);
      },
    },
    ...fields.map(({ label }) => label),
    choice ? el("label", {}, "Example", choice) : "",
    body ? el("label", {}, "Body", body) : "",
    el("button", {}, "Send"), status,
  );
  return [form, output];
}

/** Sends a request, and shows the response as it arrives. */
async function send(method, path, fields, body, status, output) {
  const url = new URL(path.replace(/^\//, ""), root);
  for (const { parameter, input } of fields) {
    if (parameter.in === "query" && input.value) url.searchParams.set(parameter.name, input.value);
    if (parameter.in === "path") url.pathname = decodeURI(url.pathname).replace(`{${parameter.name}}`, input.value);
  }
  const start = performance.now();
  status.className = "muted";
  status.textContent = "Waiting for the response";
  output.hidden = true;
  try {
    const response = await fetch(url, { method, body: body?.value, headers: body ? { "content-type": "application/json" } : {} });
    status.className = response.ok ? "" : "bad";
    output.textContent = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      output.textContent += part.value;
      output.hidden = false;
    }
    if (response.headers.get("content-type")?.includes("json")) output.textContent = JSON.stringify(JSON.parse(output.textContent), null, 2);
    status.textContent = `${response.status} in ${Math.round(performance.now() - start)} ms from ${response.headers.get("x-served-by") ?? url.host}`;
  } catch (error) {
    status.className = "bad";
    status.textContent = `No response: ${error.message}`;
  }
}

function operationSection(method, path, operation) {
  const content = resolve(operation.requestBody)?.content?.["application/json"];
  const responses = Object.entries(operation.responses ?? {}).map(([status, response]) => {
    const schema = Object.values(resolve(response).content ?? {})[0]?.schema;
    return el("tr", {}, el("th", { scope: "row" }, el("code", {}, status)), el("td", {}, resolve(response).description, " ", ...(schema ? typeOf(schema) : [])));
  });
  return el(
    "details", { id: operation.operationId, open: method === "get" },
    el("summary", {}, el("b", {}, method.toUpperCase()), el("span", { class: "path" }, path), el("span", { class: "muted" }, operation.summary ?? "")),
    el(
      "div", { class: "operation" }, el("p", {}, operation.description ?? ""),
      ...(content ? [el("h3", {}, "Body"), el("p", {}, ...typeOf(content.schema))] : []),
      el("h3", {}, "Responses"), el("table", {}, el("tbody", {}, ...responses)),
      el("h3", {}, "Try it"), ...tryOut(method, path, operation),
    ),
  );
}

async function showDescription() {
  const main = document.getElementById("main");
  const response = await fetch(new URL("openapi.json", root));
  if (!response.ok) throw new Error(`HTTP status ${response.status}`);
  description = await response.json();
  document.title = description.info.title;
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    ["get", "put", "post", "patch", "delete"].filter((method) => item[method]).map((method) => [method, path, item[method]]));
  const tags = new Set(operations.map(([, , operation]) => operation.tags?.[0] ?? "other"));
  main.replaceChildren(
    el("h1", {}, description.info.title), el("p", {}, description.info.description ?? ""),
    el("p", { class: "muted" }, `Version ${description.info.version} · `, el("a", { href: new URL("openapi.json", root).href }, "openapi.json")),
    ...[...tags].flatMap((tag) => [
      el("h2", {}, description.tags?.find(({ name }) => name === tag)?.description ?? tag),
      ...operations.filter(([, , operation]) => (operation.tags?.[0] ?? "other") === tag).map((operation) => operationSection(...operation)),
    ]),
    el("h2", {}, "Types"),
    ...Object.entries(description.components?.schemas ?? {}).map(([name, schema]) =>
      el("details", { id: name }, el("summary", {}, el("span", { class: "path" }, name), el("span", { class: "muted" }, schema.description ?? "")), el("div", { class: "operation" }, members(schema)))),
  );
}

// A link to a type opens it.
window.addEventListener("hashchange", () => document.getElementById(location.hash.slice(1))?.setAttribute("open", ""));

showDescription().catch((error) => {
  document.getElementById("main").replaceChildren(el("p", { class: "bad", role: "alert" }, `The description can’t be read: ${error.message}`));
});
