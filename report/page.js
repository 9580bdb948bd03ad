(() => {
	"use strict";
	const search = document.getElementById("search"), page = document.body.dataset;
	const rows = [...document.querySelectorAll("tbody tr")], parts = [...document.querySelectorAll("details")];
	const openAtFirst = parts.map(part => part.open);
	document.getElementById("find").hidden = false;
	search.addEventListener("input", () => {
		const wanted = search.value.trim().toLowerCase();
		for (const row of rows) row.hidden = wanted != "" && !row.textContent.toLowerCase().includes(wanted);
		parts.forEach((part, i) => {
			const found = part.querySelector("tbody tr:not([hidden])") != null;
			part.hidden = wanted != "" && !found;
			part.open = wanted != "" ? found : openAtFirst[i];
		});
	});
	const look = () => {
		const age = Date.now() / 1000 - page.made, hours = Math.floor(age / 3600);
		const old = document.getElementById("old");
		old.hidden = age < page.limit;
		old.textContent = "THIS PAGE IS " + (hours < 48 ? hours + " HOURS" : Math.floor(hours / 24) + " DAYS") + " OLD: what it shows may be over";
	};
	look();
	setInterval(look, 60000);
	setInterval(() => { if (search.value == "" && scrollY == 0) location.reload() }, 300000);
})();
