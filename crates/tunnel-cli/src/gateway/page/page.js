// Keeps the page up to date, and does what its buttons say. The server makes all HTML.
"use strict";

const INTERVAL = 1000;
const live = document.getElementById("live");
const connection = document.getElementById("connection");
const said = document.getElementById("said");

// Changes an element to be like another one. Children are matched by their keys, those without a key by their order.
// What stays is not moved, so that it keeps its focus.
function change(from, to) {
    for (const { name } of [...from.attributes]) {
        if (!to.hasAttribute(name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
        if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    const keyed = new Map();
    const others = [];
    for (const child of from.childNodes) {
        const key = child.dataset?.key;
        if (key === undefined) others.push(child);
        else keyed.set(key, child);
    }
    const next = [...to.childNodes].map((wanted) => {
        const key = wanted.dataset?.key;
        const child = key === undefined ? others.shift() : keyed.get(key);
        if (!child || child.nodeName !== wanted.nodeName) return document.importNode(wanted, true);
        if (child.nodeType === Node.ELEMENT_NODE) change(child, wanted);
        else if (child.data !== wanted.data) child.data = wanted.data;
        return child;
    });
    const staying = new Set(next);
    for (const child of [...from.childNodes]) {
        if (!staying.has(child)) child.remove();
    }
    let place = from.firstChild;
    for (const node of next) {
        if (node === place) place = place.nextSibling;
        else from.insertBefore(node, place);
    }
}

function say(element, text) {
    // A text that does not change is not announced again.
    if (element.textContent !== text) element.textContent = text;
}

async function update() {
    try {
        const response = await fetch("/page/live" + location.search);
        if (response.status === 401) return location.assign("/login");
        if (!response.ok) throw new Error(await response.text());
        const text = await response.text();
        const wanted = new DOMParser().parseFromString(text, "text/html").getElementById("live");
        change(live, wanted);
        document.body.classList.remove("lost");
        say(connection, "Live");
    } catch {
        document.body.classList.add("lost");
        say(connection, "The connection to the gateway is lost. Trying again.");
    }
}

// One request at a time, and none while nobody looks.
async function follow() {
    for (;;) {
        if (!document.hidden) await update();
        await new Promise((done) => setTimeout(done, INTERVAL));
    }
}

// Opens the dialog of a button.
function ask(button) {
    const dialog = document.getElementById(button.dataset.do);
    const form = dialog.querySelector("form");
    form.reset();
    say(form.querySelector(".error"), "");
    const row = button.closest("tr");
    const key = form.elements.key;
    if (key) {
        key.value = row ? row.dataset.key : "";
        key.readOnly = row !== null;
    }
    dialog.showModal();
    const fields = [...form.elements];
    fields.find((field) => !field.readOnly).focus();
}

// Does what a dialog asks for.
async function act(dialog, form) {
    const order = Object.fromEntries(new FormData(form));
    if (order.seconds === "") delete order.seconds;
    else if (order.seconds !== undefined) order.seconds = Number(order.seconds);
    const error = form.querySelector(".error");
    const confirm = form.querySelector("button:not([data-close])");
    confirm.disabled = true;
    try {
        const response = await fetch("/page/" + dialog.id, {
            method: "POST",
            headers: { "content-type": "application/json", "tunnel-page": "1" },
            body: JSON.stringify(order),
        });
        const text = await response.text();
        if (response.status === 401) return location.assign("/login");
        if (!response.ok) return say(error, text);
        dialog.close();
        // Emptied first: the same words again are announced again.
        said.textContent = "";
        say(said, text);
        await update();
    } catch {
        say(error, "The gateway does not answer.");
    } finally {
        confirm.disabled = false;
    }
}

if (live && connection) {
    document.addEventListener("click", (event) => {
        const button = event.target.closest("[data-do], [data-close]");
        if (button === null) return;
        if (button.dataset.do !== undefined) ask(button);
        else button.closest("dialog").close();
    });
    document.addEventListener("submit", (event) => {
        const dialog = event.target.closest("dialog");
        if (dialog === null) return;
        event.preventDefault();
        act(dialog, event.target);
    });
    document.getElementById("state").addEventListener("change", (event) => event.target.form.requestSubmit());
    follow();
}
