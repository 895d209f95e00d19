-- The account that Ibex and the application share, run once by the official PostgreSQL image on a new volume:
-- the owner of a database with no rights beyond it, which is all that Ibex asks for.

\getenv password APP_PASSWORD

CREATE ROLE app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE app OWNER app;
