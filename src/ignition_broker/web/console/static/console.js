/* What the pages do beyond their HTML, which works without it: local times, countdowns, copying. */
(function () {
  "use strict";
  var UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

  function inWords(seconds) {
    var left = Math.abs(Math.round(seconds));
    var parts = [];
    for (var i = 0; i < UNITS.length && parts.length < 2; i++) {
      var number = Math.floor(left / UNITS[i][1]);
      left -= number * UNITS[i][1];
      if (number || (parts.length && i < UNITS.length - 1)) {
        parts.push(number + " " + UNITS[i][0]);
      } else if (parts.length) {
        break;
      }
    }
    var text = parts.join(" ") || "0 s";
    return seconds < 0 ? text + " ago" : "in " + text;
  }

  function local(moment) {
    return moment.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }

  var countdowns = [];
  document.querySelectorAll("time[datetime]").forEach(function (element) {
    var moment = new Date(element.dateTime);
    if (isNaN(moment)) return;
    if (element.classList.contains("until")) {
      element.title = local(moment) + " (" + element.title + ")";
      countdowns.push([element, moment]);
    } else {
      element.textContent = local(moment);
    }
  });
  function count() {
    countdowns.forEach(function (pair) {
      pair[0].textContent = inWords((pair[1] - Date.now()) / 1000);
    });
  }
  if (countdowns.length) {
    count();
    window.setInterval(count, 1000);
  }

  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      var text = document.getElementById(button.dataset.copy).textContent;
      navigator.clipboard.writeText(text).then(
        function () { button.textContent = "Copied"; },
        function () { button.textContent = "Select it and copy it by hand"; }
      );
    });
  });
})();
