-- $1 date, $2 symbols. Each symbol's last close at that date or before it.
select distinct on (symbol) symbol, session_date, close, at
from price_eod
where symbol = any($2) and session_date <= $1
order by symbol, session_date desc
